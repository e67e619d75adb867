-- Reads all leases, and keeps the set's birth time. A lease can be called due only while routers were there to
-- renew it: if none looked for a while (Redis was away, or all routers were), the set counts as born again.
--
-- KEYS[1]  zset: leases, score = due time   KEYS[2]  hash: epoch → CometInfo
-- KEYS[3]  zset: dead epochs                KEYS[4]  hash: 'birth', 'seen'
-- KEYS[5]  hash: epoch → time of enrolment
--
-- ARGV[1]  ms without a look after which the set counts as born again
-- ARGV[2]  ms for which dead epochs are known
--
-- Answers {now, birth, epoch, due time, CometInfo, time of enrolment, …}.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local state = redis.call('HMGET', KEYS[4], 'birth', 'seen')
local birth = tonumber(state[1] or now)
if not state[1] or now - tonumber(state[2] or 0) > tonumber(ARGV[1]) then
  birth = now
end
redis.call('HSET', KEYS[4], 'birth', birth, 'seen', now)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', now - ARGV[2])
local out = {now, birth}
local leases = redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES')
for i = 1, #leases, 2 do
  local n = #out
  out[n + 1] = leases[i]
  out[n + 2] = tonumber(leases[i + 1])
  out[n + 3] = redis.call('HGET', KEYS[2], leases[i]) or ''
  out[n + 4] = tonumber(redis.call('HGET', KEYS[5], leases[i]) or 0)
end
return out
