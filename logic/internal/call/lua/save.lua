-- Writes a call if nobody has since it was read: its state, what is still to be sent of it and when it is due, together.
-- KEYS[1]  the call: s state, r revision, d due in ms, n number of the last event, e<number> events not sent yet
-- ARGV[1]  revision that was read; 0: there was none
-- ARGV[2]  state    ARGV[3]  due in ms; 0: never    ARGV[4]  ms to keep it
-- ARGV[5]  number of the last event before these    ARGV[6…] events
-- Returns 1, or 0 if somebody else was first.
if tonumber(redis.call('HGET', KEYS[1], 'r') or '0') ~= tonumber(ARGV[1]) then return 0 end
local n = tonumber(ARGV[5])
redis.call('HSET', KEYS[1], 's', ARGV[2], 'r', string.format('%.0f', tonumber(ARGV[1]) + 1), 'd', ARGV[3])
for i = 6, #ARGV do
  n = n + 1
  redis.call('HSET', KEYS[1], 'e' .. string.format('%.0f', n), ARGV[i])
end
redis.call('HSET', KEYS[1], 'n', string.format('%.0f', n))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
