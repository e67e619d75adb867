-- Takes, renews or gives up a lease; somebody else's stays.
-- KEYS[1]: the lease, whose value is a call. ARGV[1]: the call. ARGV[2]: ms to keep it; 0: give it up. ARGV[3]: 1 to take it if it is nobody's.
local have = redis.call('GET', KEYS[1]) or ''
if have ~= ARGV[1] and (have ~= '' or ARGV[3] ~= '1') then return 0 end
if ARGV[2] == '0' then return redis.call('DEL', KEYS[1]) end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
