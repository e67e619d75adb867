-- Compares and writes in one bucket, for one epoch. It is the only script that changes a bucket. What is to be
-- written is decided by the caller from values that it read; an item is carried out only if these values still
-- stand, as a whole or not at all. A conflict answers the present value, so that the caller can decide again
-- without reading.
--
-- KEYS[1]  hash: the bucket's entries, its markers and its version
-- KEYS[2]  zset: tombstones of epochs, score = time of death
-- KEYS[3]  set:  fields of KEYS[1] in which the epoch has something
-- KEYS[4]  zset: work that is due, score = due time
-- KEYS[5]  zset: tombstones of connections, score = time of the deregistration
-- KEYS[6]  set:  epochs that have anything here
-- KEYS[7…] further keys of the bucket, which items name by index
--
-- ARGV[1]  epoch, 16 bytes; empty: nobody's, no tombstone is looked at
-- ARGV[2]  'w' write, refused if the epoch has a tombstone; 'r' the same, then set the marker, but only if nothing
--          was lost since the epoch wrote here; 'd' make the tombstone instead of the marker, whatever was there
--          before; 'x' take away, allowed to the dead as well
-- ARGV[3]  'r': the bucket's new version if the marker was missing
-- ARGV[4]  ms for which a connection's tombstone stands
-- ARGV[5…] items, each: number of arguments that follow, then operations:
--          = field value      go on only if the entry has this value ('': is absent)
--          c conn             go on only if the connection has no tombstone
--          s field value      set the entry           x field             remove it
--          + field            the epoch has something in it      - field  no more
--          d member ms        due in so many ms       i member ms         the same unless it is due already
--          r member score     done, if its due time is still this one
--          g conn             the connection's tombstone
--          h key field value  hash: set               y key field         hash: remove
--          z key member n     zset: set the score n; 0: remove
--
-- Answers {state, now in ms, result of each item …}. State: 0 the epoch has its marker here, 1 it has none,
-- 2 it is dead, 3 the bucket was lost ('r'), 4 it is dead ('x'); after 2 and 3 nothing was written and no results follow. Result: 0 done, 1 the connection is gone, 2 conflict
-- and the entry is absent, or a string: conflict, and the entry's value.

local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local bucket, epoch, mode = KEYS[1], ARGV[1], ARGV[2]
local state = 0
if epoch ~= '' then
  local marker = 'e' .. epoch
  if mode == 'd' then
    redis.call('ZADD', KEYS[2], 'NX', now, epoch)
    redis.call('HDEL', bucket, marker)
  elseif redis.call('ZSCORE', KEYS[2], epoch) then
    if mode ~= 'x' then
      return {2, now}
    end
    state = 4
  elseif mode ~= 'x' and redis.call('HEXISTS', bucket, marker) == 0 then
    if mode == 'r' and redis.call('SISMEMBER', KEYS[6], epoch) == 0 then
      return {3, now}
    end
    redis.call('SADD', KEYS[6], epoch)
    state = 1
  end
end

local out = {state, now}
local n, i = #ARGV, 5
while i <= n do
  local last = i + tonumber(ARGV[i])
  local result = 0
  i = i + 1
  while i <= last do
    local op, a, b = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if op == '=' then
      local v = redis.call('HGET', bucket, a)
      if (v or '') ~= b then
        result = v or 2
        break
      end
      i = i + 3
    elseif op == 's' then
      redis.call('HSET', bucket, a, b)
      i = i + 3
    elseif op == '+' then
      redis.call('SADD', KEYS[3], a)
      i = i + 2
    elseif op == '-' then
      redis.call('SREM', KEYS[3], a)
      i = i + 2
    elseif op == 'd' then
      redis.call('ZADD', KEYS[4], now + b, a)
      i = i + 3
    elseif op == 'c' then
      local at = redis.call('ZSCORE', KEYS[5], a)
      if at and at + ARGV[4] > now then
        result = 1
        break
      end
      i = i + 2
    elseif op == 'x' then
      redis.call('HDEL', bucket, a)
      i = i + 2
    elseif op == 'g' then
      redis.call('ZADD', KEYS[5], now, a)
      redis.call('ZREMRANGEBYSCORE', KEYS[5], '-inf', now - ARGV[4])
      i = i + 2
    elseif op == 'i' then
      redis.call('ZADD', KEYS[4], 'NX', now + b, a)
      i = i + 3
    elseif op == 'r' then
      local due = redis.call('ZSCORE', KEYS[4], a)
      if due and tonumber(due) == tonumber(b) then
        redis.call('ZREM', KEYS[4], a)
      end
      i = i + 3
    elseif op == 'h' then
      redis.call('HSET', KEYS[tonumber(a)], b, ARGV[i + 3])
      i = i + 4
    elseif op == 'y' then
      redis.call('HDEL', KEYS[tonumber(a)], b)
      i = i + 3
    elseif op == 'z' then
      local score = tonumber(ARGV[i + 3])
      if score == 0 then
        redis.call('ZREM', KEYS[tonumber(a)], b)
      else
        redis.call('ZADD', KEYS[tonumber(a)], score, b)
      end
      i = i + 4
    else
      return redis.error_reply('ERR unknown operation ' .. op)
    end
  end
  i = last + 1
  out[#out + 1] = result
end

if state == 1 and mode == 'r' then
  redis.call('HSET', bucket, 'e' .. epoch, '1', 'v', ARGV[3])
end
return out
