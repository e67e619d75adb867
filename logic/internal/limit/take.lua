-- Takes up to n tokens of one bucket (GCRA: the bucket is the time at which it will be full again).
-- KEYS[1]: that time in microseconds by Redis' clock; no key: full.
-- ARGV[1]: microseconds a token, may have a fraction. ARGV[2]: size of the bucket in tokens. ARGV[3]: n.
-- Returns {tokens taken, microseconds until there is one again if none was taken}.
local t = redis.call('TIME')
local now = tonumber(t[1]) * 1000000 + tonumber(t[2])
local interval = tonumber(ARGV[1])
local size = interval * tonumber(ARGV[2])
local full = tonumber(redis.call('GET', KEYS[1]) or now)
if full < now then full = now end

local n = math.floor((now + size - full) / interval + 0.001)
if n < 1 then
  return {0, math.ceil(full + interval - now - size)}
end
if n > tonumber(ARGV[3]) then n = tonumber(ARGV[3]) end
full = full + n * interval
redis.call('SET', KEYS[1], string.format('%.0f', full), 'PX', math.ceil((full - now) / 1000) + 1000)
return {n, 0}
