do
-- Pausing a paused queue keeps since when, and replaces by whom and why.
local function pause(call, by, reason)
  local since = call.paused and read_pause(call.paused)[1] or call.now
  call.paused, call.touched = cmsgpack.pack({ since, by, reason }), true
  raise(call, SCHEMA_OF_PAUSES)
  redis.call('HSET', call.keys[META], 'paused', call.paused)
  return { 'P' }
end

local function resume(call)
  if call.paused then
    call.paused, call.resumed, call.touched = false, call.now, true
    redis.call('HDEL', call.keys[META], 'paused')
    redis.call('HSET', call.keys[META], 'resumed', call.now)
  end
  return { 'U' }
end

-- What a policy says of keys: how many rules, five arguments for each (pattern, slots, interval in microseconds, burst, thousandths
-- a second), how many weights, key and weight of each, and whether a task that failed gives its ordering key up. Answers it, and
-- where the next operation begins.
local function read_by_key(argv, at)
  local rules, weights = {}, {}
  local count = tonumber(argv[at])
  at = at + 1
  for _ = 1, count do
    rules[#rules + 1] = { argv[at], tonumber(argv[at + 1]), tonumber(argv[at + 2]), tonumber(argv[at + 3]), tonumber(argv[at + 4]) }
    at = at + 5
  end
  count = tonumber(argv[at])
  at = at + 1
  for _ = 1, count do
    weights[#weights + 1], weights[#weights + 2] = argv[at], tonumber(argv[at + 1])
    at = at + 2
  end
  return { tonumber(argv[at]), rules, weights }, at + 1
end

-- A policy: what `layout.lua` names, in its order, numbers but for the retry, and what it says of keys.
local POLICY_ARGS = 10
local function govern(call, argv, at)
  local policy = {}
  for field = 1, POLICY_ARGS do
    policy[field] = field == P_RETRY and argv[at + field] or tonumber(argv[at + field])
  end
  -- What is owed is owed in tokens: it is paid at the new rate.
  local before, now_us = call.policy[P_INTERVAL_US], call.now * 1000
  local owed_us = before > 0 and math.max(0, call.paid - now_us) / before * math.max(0, policy[P_INTERVAL_US]) or 0
  call.paid = owed_us > 0 and now_us + math.ceil(owed_us) or 0
  call.policy, call.touched = policy, true
  raise(call, SCHEMA_OF_POLICIES)
  local by_key, next_op = read_by_key(argv, at + 1 + POLICY_ARGS)
  local opens_gates = cmsgpack.pack(gates.by_key(call).rules) ~= cmsgpack.pack(by_key[2])
  redis.call('HSET', call.keys[META], 'policy', cmsgpack.pack(policy), 'by_key', cmsgpack.pack(by_key))
  call.by_key = nil
  if by_key[1] == 1 or #by_key[2] > 0 or #by_key[3] > 0 then
    raise(call, SCHEMA_OF_KEYS)
  end
  if opens_gates and call.schema >= SCHEMA_OF_KEYS then
    call.unlooked = ''
    gates.look(call)
  end
  return { 'Y' }, next_op
end

-- A declaration: its mark, -1 without one, whether paused, by whom and why, whether a policy follows, and that. Second, where the
-- next operation begins.
local DECLARE_ARGS = 6
local function declare(call, argv, at)
  local epoch, generation, paused = tonumber(argv[at + 1]), tonumber(argv[at + 2]), tonumber(argv[at + 3])
  local governs = argv[at + DECLARE_ARGS] == '1'
  local next_op = at + 1 + DECLARE_ARGS
  if governs then
    next_op = select(2, read_by_key(argv, next_op + POLICY_ARGS))
  end
  local was = read_declared(redis.call('HGET', call.keys[META], 'declared'))
  if generation < 0 then
    epoch, generation = was[1], was[2]
  elseif epoch < was[1] or (epoch == was[1] and generation <= was[2]) then
    return { 'M', 0 }, next_op
  end
  if governs then
    govern(call, argv, at + DECLARE_ARGS)
    if paused > was[3] then
      pause(call, argv[at + 4], argv[at + 5])
    elseif paused < was[3] then
      resume(call)
    end
  end
  call.touched = true
  redis.call('HSET', call.keys[META], 'declared', cmsgpack.pack({ epoch, generation, paused }))
  return { 'M', 1 }, next_op
end

-- How many arguments an operation on a lease has, with its letter.
local ACT_ARGS = { D = 6, F = 7, R = 4, H = 6 }

-- Reads the records of all leases that the call begins with, and what the gates of their tasks hold: two commands for them all.
local function read_ahead(call, argv)
  local ids, at = {}, 3
  while ACT_ARGS[argv[at]] do
    ids[#ids + 1] = argv[at + 1]
    at = at + ACT_ARGS[argv[at]]
  end
  load_records(call, ids)
  if call.schema >= SCHEMA_OF_KEYS then
    gates.load_of(call, ids)
  end
end

-- ARGV: path, most bytes of the answer, then operations, each a letter and its arguments.
local function work(keys, argv)
  local call, refused = begin(keys, argv[1])
  if not call then
    return refused
  end
  call.answer_max = math.min(ANSWER_MAX_BYTES, tonumber(argv[2]))
  read_ahead(call, argv)
  local results, swept, at = {}, false, 3
  while at <= #argv do
    local kind = argv[at]
    local id, token = argv[at + 1], argv[at + 2]
    local result
    if kind == 'C' then
      if not swept then
        end_overdue(call, SWEEP_SLICE)
        move_due(call)
        swept = true
      end
      result = claim(call, tonumber(argv[at + 1]), tonumber(argv[at + 2]), argv[at + 3], argv[at + 4])
      at = at + 5
    elseif kind == 'D' then
      result = complete(call, id, token, argv[at + 3], argv[at + 4], tonumber(argv[at + 5]))
      at = at + 6
    elseif kind == 'F' then
      result = fail(call, id, token, argv[at + 3], tonumber(argv[at + 4]), tonumber(argv[at + 5]), argv[at + 6])
      at = at + 7
    elseif kind == 'R' then
      result = release(call, id, token, tonumber(argv[at + 3]))
      at = at + 4
    elseif kind == 'H' then
      result = heartbeat(call, id, token, tonumber(argv[at + 3]), argv[at + 4], argv[at + 5])
      at = at + 6
    elseif kind == 'G' then
      result = purge(call, id, tonumber(argv[at + 2]))
      at = at + 3
    elseif kind == 'V' then
      result = redrive(call, id, tonumber(argv[at + 2]))
      at = at + 3
    elseif kind == 'Y' then
      result, at = govern(call, argv, at)
    elseif kind == 'M' then
      result, at = declare(call, argv, at)
    elseif kind == 'P' then
      result = pause(call, argv[at + 1], argv[at + 2])
      at = at + 3
    elseif kind == 'U' then
      result = resume(call)
      at = at + 1
    else
      result = cancel(call, id)
      at = at + 2
    end
    results[#results + 1] = result
  end
  return finish(call, results)
end

redis.register_function { function_name = 'PREFIX_work', callback = work, flags = { 'allow-oom' } }
end
