-- Takes calls whose time has come, for a while: whoever takes one moves it when he is done, and if he never does somebody else takes it
-- later. Scores are ms times 1024 and a random part, so that a score names who set it.
-- KEYS[1]: zset of calls by the time of the next look. ARGV[1]: ms for which they are taken. ARGV[2]: the most. ARGV[3]: random part, below 1024.
-- Returns {now in ms, new score, call, …}; the score as text.
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local score = string.format('%.0f', (now + ARGV[1]) * 1024 + ARGV[3])
local out = {now, score}
for _, m in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now * 1024 + 1023), 'LIMIT', 0, ARGV[2])) do
  redis.call('ZADD', KEYS[1], score, m)
  out[#out + 1] = m
end
return out
