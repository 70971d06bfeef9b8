do
-- Schedules by `tenant/name`; what they say is their server's matter. Of several servers that change one at once one succeeds: it
-- names the version that it has read.
local KEPT, NAMES, DUE, BYTES = 1, 2, 3, 4

local function wall()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- A schedule is kept as its version, a space, when its next tick comes (-1 for never), a space, and what it says.
local function version_of(kept)
  return kept and string.match(kept, '^%d+') or ''
end

-- Which bound has no room for this schedule. `bytes` are those of all of the tenant with it, and `grows` how many come in.
local function crowded(keys, tenant, before, bytes, grows)
  local from, to = '[' .. tenant .. '/', '(' .. tenant .. '0'
  if not before and redis.call('ZLEXCOUNT', keys[NAMES], from, to) >= SCHEDULES.of_tenant then
    return 'T'
  end
  if not before and redis.call('HLEN', keys[KEPT]) >= SCHEDULES.of_store then
    return 'S'
  end
  return grows > (before and SCHEDULES.grows or 0) and bytes > SCHEDULES.bytes_of_tenant and 'B' or nil
end

-- ARGV: path, the version that is replaced ('' for none), the schedule as it is to be kept ('' for none), and when its next tick
-- comes. Answers 'O', 'X' where it has another version, or the bound that has no room.
local function change(keys, argv)
  local path, after = argv[1], argv[3]
  local tenant = string.match(path, '^[^/]*')
  local before = redis.call('HGET', keys[KEPT], path)
  if version_of(before) ~= argv[2] then
    return 'X'
  end
  local grows = #after - (before and #before or 0)
  local bytes = tonumber(redis.call('HGET', keys[BYTES], tenant) or 0) + grows
  local full = after ~= '' and crowded(keys, tenant, before, bytes, grows)
  if full then
    return full
  end
  if bytes > 0 then
    redis.call('HSET', keys[BYTES], tenant, bytes)
  else
    redis.call('HDEL', keys[BYTES], tenant)
  end
  if after == '' then
    redis.call('HDEL', keys[KEPT], path)
    redis.call('ZREM', keys[NAMES], path)
  else
    redis.call('HSET', keys[KEPT], path, after)
    redis.call('ZADD', keys[NAMES], 0, path)
  end
  if after == '' or tonumber(argv[4]) < 0 then
    redis.call('ZREM', keys[DUE], path)
  else
    redis.call('ZADD', keys[DUE], tonumber(argv[4]), path)
  end
  return 'O'
end

-- Paths with what is kept of each.
local function kept_of(keys, paths)
  local answer = {}
  for _, path in ipairs(paths) do
    local kept = redis.call('HGET', keys[KEPT], path)
    if kept then
      answer[#answer + 1], answer[#answer + 2] = path, kept
    end
  end
  return answer
end

-- ARGV: path. Answers the wall clock, and the schedule in a list.
local function get(keys, argv)
  return { wall(), kept_of(keys, argv) }
end

-- ARGV: tenant, the name that the page begins behind ('' for none), most schedules.
local function page(keys, argv)
  local first, last = '[' .. argv[1] .. '/', '(' .. argv[1] .. '0'
  if argv[2] ~= '' then
    first = '(' .. argv[1] .. '/' .. argv[2]
  end
  return kept_of(keys, redis.call('ZRANGEBYLEX', keys[NAMES], first, last, 'LIMIT', 0, tonumber(argv[3])))
end

-- ARGV: most schedules. Answers the wall clock, when the first of all others comes (-1 for never), and those whose tick has come.
local function due(keys, argv)
  local now = wall()
  local paths = redis.call('ZRANGEBYSCORE', keys[DUE], '-inf', now, 'LIMIT', 0, tonumber(argv[1]))
  local other = redis.call('ZRANGE', keys[DUE], #paths, #paths, 'WITHSCORES')
  return { now, tonumber(other[2] or -1), kept_of(keys, paths) }
end

redis.register_function { function_name = 'PREFIX_change_schedule', callback = change, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_schedule', callback = get, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_schedules', callback = page, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_due_schedules', callback = due, flags = { 'allow-oom' } }
end
