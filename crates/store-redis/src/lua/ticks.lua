local ticks = {}
do
-- The last tick of each schedule that became a task: when the schedule was made, the time of the tick, and the task. A server that
-- was stopped in the middle of firing one fires it no second time, however long ago its task has ended.

-- The schedule's name, when it was made, and the time of the tick.
local function read(tick)
  local made, at, name = string.match(tick, '^(%d+),(%d+),(.+)$')
  return name, tonumber(made), tonumber(at)
end

-- The task that this tick, or a later one of the schedule, became.
function ticks.fired(call, tick)
  local name, made, at = read(tick)
  local last = redis.call('HGET', call.keys[TICKS], name)
  if not last then
    return nil
  end
  local last_made, last_at, task = string.match(last, '^(%d+),(%d+),(.+)$')
  return tonumber(last_made) == made and tonumber(last_at) >= at and task or nil
end

local function forget_half(key)
  local times = {}
  for _, name in ipairs(redis.call('HKEYS', key)) do
    times[#times + 1] = { tonumber(string.match(redis.call('HGET', key, name), ',(%d+),')), name }
  end
  table.sort(times, function(a, b)
    return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2])
  end)
  local names = {}
  for at = 1, math.floor(#times / 2) do
    names[at] = times[at][2]
  end
  bulk('HDEL', key, names)
end

function ticks.remember(call, tick, id)
  local key = call.keys[TICKS]
  local name, made, at = read(tick)
  redis.call('HSET', key, name, string.format('%d,%d,', made, at) .. id)
  if redis.call('HLEN', key) > SCHEDULES.ticks then
    forget_half(key)
  end
end
end
