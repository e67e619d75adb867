-- Renews a lease, or makes it: at the enrolment, and after Redis lost it.
--
-- KEYS[1]  zset: leases, score = due time   KEYS[2]  hash: epoch → CometInfo
-- KEYS[3]  zset: dead epochs                KEYS[4]  zset: dead epochs to be cleared away
-- KEYS[5]  hash: 'birth' of the set, when a router last looked ('seen')
-- KEYS[6]  hash: epoch → time of enrolment  KEYS[7]  hash: epoch → renewals so far
--
-- ARGV[1]  epoch   ARGV[2]  CometInfo   ARGV[3]  ms from renewal to due time
-- ARGV[4]  ms without a router's look after which no lease can be called due (leases.lua)
-- ARGV[5]  ms from birth in which no lease is called due
--
-- Answers {0 renewed | 1 made | 2 dead, now, number of renewals, birth}.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local epoch = ARGV[1]
local state = redis.call('HMGET', KEYS[5], 'birth', 'seen')
local birth = tonumber(state[1] or now)
if not state[1] or now - tonumber(state[2] or 0) > tonumber(ARGV[4]) then
  birth = now
end
redis.call('HSET', KEYS[5], 'birth', birth, 'seen', now)
if redis.call('ZSCORE', KEYS[3], epoch) then
  return {2, now, 0, birth}
end
local due = redis.call('ZSCORE', KEYS[1], epoch)
if due and tonumber(due) <= now and now >= birth + ARGV[5] then
  redis.call('ZREM', KEYS[1], epoch)
  redis.call('ZADD', KEYS[3], now, epoch)
  redis.call('ZADD', KEYS[4], 0, epoch)
  redis.call('HDEL', KEYS[2], epoch)
  redis.call('HDEL', KEYS[6], epoch)
  redis.call('HDEL', KEYS[7], epoch)
  if redis.call('ZCARD', KEYS[1]) == 0 then
    redis.call('HSET', KEYS[5], 'birth', now)
  end
  return {2, now, 0, birth}
end
redis.call('ZADD', KEYS[1], now + ARGV[3], epoch)
redis.call('HSET', KEYS[2], epoch, ARGV[2])
redis.call('HSETNX', KEYS[6], epoch, now)
local made = 0
if not due then made = 1 end
return {made, now, redis.call('HINCRBY', KEYS[7], epoch, 1), birth}
