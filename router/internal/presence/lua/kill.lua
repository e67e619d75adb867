-- Declares epochs dead: those whose lease is due, or named ones. They stay dead, and go to the list of those to
-- be cleared away.
--
-- KEYS[1]  zset: leases, score = due time   KEYS[2]  hash: epoch → CometInfo
-- KEYS[3]  zset: dead epochs                KEYS[4]  zset: dead epochs to be cleared away
-- KEYS[5]  hash: 'birth', 'seen'            KEYS[6]  hash: epoch → time of enrolment
-- KEYS[7]  hash: epoch → renewals so far
--
-- ARGV[1]  ms from birth in which no lease is called due
-- ARGV[2]  ms without a router's look after which no lease can be called due (leases.lua)
-- ARGV[3…] epochs; none: those that are due
--
-- Answers the epochs that are dead now and weren't before.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epochs = {}
if #ARGV > 2 then
  for i = 3, #ARGV do epochs[i - 2] = ARGV[i] end
else
  local state = redis.call('HMGET', KEYS[5], 'birth', 'seen')
  if not state[1] or now < state[1] + ARGV[1] or now - (state[2] or 0) > tonumber(ARGV[2]) then
    return {}
  end
  epochs = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now)
end
local out = {}
for _, epoch in ipairs(epochs) do
  if redis.call('ZADD', KEYS[3], 'NX', now, epoch) == 1 then
    redis.call('ZADD', KEYS[4], 0, epoch)
    out[#out + 1] = epoch
  end
  redis.call('ZREM', KEYS[1], epoch)
  redis.call('HDEL', KEYS[2], epoch)
  redis.call('HDEL', KEYS[6], epoch)
  redis.call('HDEL', KEYS[7], epoch)
end
if #out > 0 and redis.call('ZCARD', KEYS[1]) == 0 then
  redis.call('HSET', KEYS[5], 'birth', now)
end
return out
