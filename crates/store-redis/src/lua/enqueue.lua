do
-- Arguments of one task: id, payload, band, start (n|i|a), start ms, max attempts, retry, kept ms, dead ms, key, and what most
-- lack: 'r' where it replaces the queued task of its key, 'd' and its deadline, 't' and for how long its key is held, in ms, and
-- 'c' and its cost; its keys by their lengths, at the end of it: 'k', the lengths of the ordering, the limit and the fairness key, a
-- semicolon, the keys, and then the tick of a schedule that it is made for. Retry and retention that are empty are the queue's.
local ENQUEUE_ARGS = 11
local REPLACES = 114 -- 'r'

-- The keys of a task out of its options, nil where it lacks one, or none at all; what stands before them; and its tick.
local function keys_of(options)
  local from, to, ordering, limit, fairness = string.find(options, 'k(%d+),(%d+),(%d+);')
  if not from then
    return nil, options
  end
  local keys, at = {}, to + 1
  for place, length in ipairs({ tonumber(ordering), tonumber(limit), tonumber(fairness) }) do
    keys[place] = length > 0 and string.sub(options, at, at + length - 1) or nil
    at = at + length
  end
  local tick = at <= #options and string.sub(options, at) or nil
  return next(keys) and keys, string.sub(options, 1, from - 1), tick
end

-- Reads all records and keys that the tasks may meet: two commands for the whole batch. Answers the ids by key, and the ticks of
-- those tasks that are made for one, by their place in ARGV.
local function read_ahead(call, argv)
  local ids, keys, holders = {}, {}, {}
  for at = 2, #argv, ENQUEUE_ARGS do
    ids[#ids + 1] = argv[at]
    local key = argv[at + 9]
    if key ~= '' and holders[key] == nil then
      holders[key] = false
      keys[#keys + 1] = key
    end
  end
  for first = 1, #keys, SLICE do
    local last = math.min(first + SLICE - 1, #keys)
    local found = redis.call('HMGET', call.keys[IDEM], unpack(keys, first, last))
    for at = first, last do
      local holder = found[at - first + 1]
      holders[keys[at]] = holder
      ids[#ids + 1] = holder or nil
    end
  end
  load_records(call, ids)
  local fields, tick_of = {}, {}
  for at = 2, #argv, ENQUEUE_ARGS do
    local own, _, tick = keys_of(argv[at + 10])
    tick_of[at] = tick
    if own or call.fair then
      own = own or {}
      gates.fields(call, fields, argv[at + 2], own[1], own[2], own[3])
    end
  end
  gates.load(call, fields)
  return holders, tick_of
end

local function new_record(call, argv, at)
  local ready_at = call.now
  if argv[at + 3] == 'i' then
    ready_at = call.now + tonumber(argv[at + 4])
  elseif argv[at + 3] == 'a' then
    ready_at = math.max(call.now, tonumber(argv[at + 4]))
  end
  local state = ready_at > call.now and DELAYED_STATE or READY_STATE
  local policy = call.policy
  local retry = argv[at + 6] == '' and policy[P_RETRY] or argv[at + 6]
  local kept_ms, dead_ms = tonumber(argv[at + 7]) or policy[P_KEPT_MS], tonumber(argv[at + 8]) or policy[P_DEAD_MS]
  local record = { state, tonumber(argv[at + 2]), next_seq(call), 0, 0, kept_ms, dead_ms, ready_at,
    ready_at, 0, -1, tonumber(argv[at + 5]), retry, argv[at + 9], call.now, '', 0, -1, '', NOT_YET, 0 }
  local own, options = keys_of(argv[at + 10])
  local deadline_ms, key_ms = string.match(options, 'd(%d+)'), string.match(options, 't(%d+)')
  if deadline_ms or key_ms then
    record[S_DEADLINE] = deadline_ms and call.now + tonumber(deadline_ms) or -1
    record[S_KEY_UNTIL] = key_ms and call.now + tonumber(key_ms) or -1
    record[S_DEADLINE_MS] = tonumber(deadline_ms or -1)
    raise(call, SCHEMA_OF_DEADLINES)
  end
  local cost = string.match(options, 'c(%d+)')
  if cost then
    set_rare(record, S_COST, tonumber(cost))
  end
  if own then
    set_rare(record, S_HOLDS, 0)
    record[S_COST], record[S_ORDERING], record[S_LIMIT], record[S_FAIRNESS] =
      tonumber(cost or 1), own[1] or -1, own[2] or -1, own[3] or -1
    raise(call, SCHEMA_OF_KEYS)
  end
  return record
end

-- The task that holds the key. One past its retention, or past the time for which the key was to be held, gives it up, whether
-- or not a sweep has come by.
local function holder_of(call, holders, key)
  local id = key ~= '' and holders[key]
  local record = id and load_record(call, id)
  if not record then
    return nil
  end
  local until_ms = record[S_KEY_UNTIL] or -1
  if is_gone(call, record) then
    record[S_KEY] = ''
    save(call, id)
    return nil
  elseif until_ms >= 0 and until_ms <= call.now then
    record[S_KEY_UNTIL] = GIVEN_UP
    save(call, id)
    return nil
  end
  return id, record
end

-- Puts a new task where it belongs. Its place is written with others.
local function put_in(call, id, record)
  if record[S_STATE] == READY_STATE and (is_keyed(record) or call.fair) then
    gates.admit(call, id, record)
  end
  call.records[id] = record
  stand(call, id, record)
  if is_keyed(record) then
    gates.hand_on(call, record, 0)
  end
end

-- ARGV: path, then the tasks. Bodies, keys and places are written when all answers are known, but for those of a call that
-- also replaces a task, which may be one of its own, and of one that looks at a line.
local function enqueue(keys, argv)
  local call, refused = begin(keys, argv[1])
  if not call then
    return refused
  end
  local holders, tick_of = read_ahead(call, argv)
  local results, bodies, idem, extra = {}, {}, {}, {}
  for at = 2, #argv, ENQUEUE_ARGS do
    local id, key = argv[at], argv[at + 9]
    local existing, seen = holder_of(call, holders, key)
    local tick = tick_of[at]
    local fired = tick and ticks.fired(call, tick)
    local replaces = existing and string.byte(argv[at + 10]) == REPLACES and is_queued(seen)
    if existing and not replaces then
      results[#results + 1] = { 'E', outline(existing, seen) }
    elseif fired then
      results[#results + 1] = { 'I', fired }
    elseif not replaces and load_record(call, id) then
      results[#results + 1] = 'T'
    else
      if replaces then
        id = existing
        write_places(call)
        gates.drop(call, id, seen, function()
          remove_from_index(call, id, seen)
          name_extra(extra, id, seen)
        end)
      end
      local record = new_record(call, argv, at)
      put_in(call, id, record)
      if tick then
        ticks.remember(call, tick, id)
      end
      bodies[#bodies + 1], bodies[#bodies + 2] = id, argv[at + 1]
      if key ~= '' then
        holders[key] = id
        idem[#idem + 1], idem[#idem + 2] = key, id
      end
      results[#results + 1] = replaces and { 'W', id, record[S_STATE], record[S_READY_AT] }
        or { 'N', record[S_STATE], record[S_READY_AT] }
    end
  end
  bulk('HSET', keys[BODY], bodies)
  bulk('HSET', keys[IDEM], idem)
  bulk('HDEL', keys[EXTRA], extra)
  write_places(call)
  return finish(call, results)
end

redis.register_function('PREFIX_enqueue', enqueue)
end
