do
-- Arguments of one task: id, payload, band, start (n|i|a), start ms, max attempts, retry, kept ms, dead ms, key, and what most
-- lack: 'r' where it replaces the queued task of its key, 'd' and its deadline, 't' and for how long its key is held, in ms, and
-- 'c' and its cost. Retry and retention that are empty are the queue's.
local ENQUEUE_ARGS = 11
local REPLACES = 114 -- 'r'

-- Reads all records and keys that the tasks may meet: two commands for the whole batch. Answers the ids by key.
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
  return holders
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
  local deadline_ms, key_ms = string.match(argv[at + 10], 'd(%d+)'), string.match(argv[at + 10], 't(%d+)')
  if deadline_ms or key_ms then
    record[S_DEADLINE] = deadline_ms and call.now + tonumber(deadline_ms) or -1
    record[S_KEY_UNTIL] = key_ms and call.now + tonumber(key_ms) or -1
    record[S_DEADLINE_MS] = tonumber(deadline_ms or -1)
    raise(call, SCHEMA_OF_DEADLINES)
  end
  local cost = string.match(argv[at + 10], 'c(%d+)')
  if cost then
    set_rare(record, S_COST, tonumber(cost))
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

local function stand(call, places, id, record)
  local index, score = index_of(record)
  local place, deadline = places[index], awaited_deadline(record)
  place[#place + 1], place[#place + 2] = score, id
  if deadline then
    place = places[DEADLINES]
    place[#place + 1], place[#place + 2] = deadline, id
    call.deadline = earlier(call.deadline, deadline)
  end
end

-- Writes the places that were collected; answers an empty collection.
local function write_places(call, places)
  bulk('ZADD', call.keys[READY], places[READY] or {})
  bulk('ZADD', call.keys[DELAYED], places[DELAYED] or {})
  bulk('ZADD', call.keys[DEADLINES], places[DEADLINES] or {})
  return { [READY] = {}, [DELAYED] = {}, [DEADLINES] = {} }
end

-- ARGV: path, then the tasks. Bodies, keys and places are written when all answers are known, but for those of a call that
-- also replaces a task: it may be one of its own.
local function enqueue(keys, argv)
  local call, refused = begin(keys, argv[1])
  if not call then
    return refused
  end
  local holders = read_ahead(call, argv)
  local results, bodies, idem, extra, places = {}, {}, {}, {}, write_places(call, {})
  for at = 2, #argv, ENQUEUE_ARGS do
    local id, key = argv[at], argv[at + 9]
    local existing, seen = holder_of(call, holders, key)
    local replaces = existing and string.byte(argv[at + 10]) == REPLACES and seen[S_STATE] <= READY_STATE
    if existing and not replaces then
      results[#results + 1] = { 'E', outline(existing, seen) }
    elseif not replaces and load_record(call, id) then
      results[#results + 1] = 'T'
    else
      local record = new_record(call, argv, at)
      if replaces then
        id, places = existing, write_places(call, places)
        lift(call, id, seen)
        name_extra(extra, id, seen)
      end
      call.records[id] = record
      call.counts[record[S_STATE]] = call.counts[record[S_STATE]] + 1
      save(call, id)
      bodies[#bodies + 1], bodies[#bodies + 2] = id, argv[at + 1]
      stand(call, places, id, record)
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
  write_places(call, places)
  return finish(call, results)
end

redis.register_function('PREFIX_enqueue', enqueue)
end
