-- Raises a mark to a value, unless it is higher, and lets it live on.
-- KEYS[1] the mark
-- ARGV[1] the value
-- ARGV[2] its life in milliseconds
local now = redis.call('GET', KEYS[1])
if now and tonumber(now) >= tonumber(ARGV[1]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
else
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 0
