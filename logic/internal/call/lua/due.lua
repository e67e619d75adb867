-- Moves a call in the index of timers, if it is still where the caller has put it. If somebody else has moved it meanwhile he may not have known of
-- what the caller has changed: then it is looked at no later than the caller wants it.
-- KEYS[1]: zset of calls by the time of the next look. ARGV[1]: the call. ARGV[2]: the score that it had. ARGV[3]: its new one; 0: none.
-- Returns 1 if it was moved.
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not at or tonumber(at) ~= tonumber(ARGV[2]) then
  if ARGV[3] ~= '0' then redis.call('ZADD', KEYS[1], 'LT', ARGV[3], ARGV[1]) end
  return 0
end
if ARGV[3] == '0' then
  redis.call('ZREM', KEYS[1], ARGV[1])
else
  redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
end
return 1
