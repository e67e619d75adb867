-- Moves a call in the index of timers, if it is still where the caller has put it. If somebody else has moved it meanwhile he may not have known of
-- what the caller has changed: then it is looked at no later than the caller wants it, and he doesn't put it off any more.
-- KEYS[1]: zset of calls by the time of the next look. ARGV[1]: the call. ARGV[2]: the score that it had. ARGV[3]: its new one; 0: none.
-- Returns 1 if it was moved.
local at = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or '')
if at and at == tonumber(ARGV[2]) then
  if ARGV[3] == '0' then
    redis.call('ZREM', KEYS[1], ARGV[1])
  else
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
  end
  return 1
end
if ARGV[3] == '0' then return 0 end
local want = tonumber(ARGV[3])
if at and at <= want then
  local mark = want % 1024
  if at % 1024 == mark then mark = (mark + 1) % 1024 end
  want = at - at % 1024 + mark
end
redis.call('ZADD', KEYS[1], string.format('%.0f', want), ARGV[1])
return 0
