-- Has a call looked at at a time, or before. Whatever the time is, the score names the caller from then on: who has put the call there before, and is
-- done later, doesn't know of what the caller is about to change.
-- KEYS[1]: zset of calls by the time of the next look. ARGV[1]: the call. ARGV[2]: the score that the caller wants, below 2^53.
-- Returns the score that it has then, as text.
local want = tonumber(ARGV[2])
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if at and tonumber(at) <= want then
  local mark = want % 1024
  at = tonumber(at)
  if at % 1024 == mark then mark = (mark + 1) % 1024 end
  want = at - at % 1024 + mark
end
local score = string.format('%.0f', want)
redis.call('ZADD', KEYS[1], score, ARGV[1])
return score
