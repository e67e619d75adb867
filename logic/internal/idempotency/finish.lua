-- Ends a request that this process began: keeps its answer, or forgets the request.
-- KEYS[1]: the request. ARGV[1]: its value while in progress, which names the owner: another's is left alone.
-- ARGV[2]: the value to keep, empty to forget. ARGV[3]: milliseconds to keep it.
-- Returns 1 if the request was still the owner's.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return 1
