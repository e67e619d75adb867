-- Sets, or removes, a value if it is what the caller believes.
-- KEYS[1]: the value. ARGV[1]: what it is; empty: there is none. ARGV[2]: the new one; empty: remove. ARGV[3]: ms to keep it.
-- Returns the value that is there then; empty: none.
local have = redis.call('GET', KEYS[1]) or ''
if have ~= ARGV[1] then return have end
if ARGV[2] == '' then
  redis.call('DEL', KEYS[1])
else
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
end
return ARGV[2]
