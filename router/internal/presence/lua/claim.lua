-- Takes what is due, for a while: whoever took it removes it when it is done, and if it never does, somebody
-- else takes it later. One set, so that it serves a bucket's due work and the dead epochs alike.
--
-- KEYS[1]  zset: score = due time in ms
-- ARGV[1]  ms for which the taken are held back from others
-- ARGV[2]  the most to take
--
-- Answers {new due time, member …}.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local due = now + ARGV[1]
local out = {due}
for _, m in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], due, m)
  out[#out + 1] = m
end
return out
