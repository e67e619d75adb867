-- Reads a call with the time that it is judged by.
-- KEYS[1]: the call. Returns {now in ms, field, value, …}; {now} if there is none.
local t = redis.call('TIME')
local out = redis.call('HGETALL', KEYS[1])
table.insert(out, 1, t[1] * 1000 + math.floor(t[2] / 1000))
return out
