-- Arguments of one task: id, payload, band, start (n|i|a), start ms, max attempts, retry, kept ms, dead ms, key, and 'r' where
-- it replaces the queued task of its key.
local ENQUEUE_ARGS = 11

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
  return { state, tonumber(argv[at + 2]), next_seq(call), 0, 0, tonumber(argv[at + 7]), tonumber(argv[at + 8]), ready_at,
    ready_at, 0, -1, tonumber(argv[at + 5]), argv[at + 6], argv[at + 9], call.now, '', 0, -1, '', NOT_YET, 0 }
end

-- The task that holds the key. One past its retention gives it up, whether or not a sweep has come by.
local function holder_of(call, holders, key)
  local id = key ~= '' and holders[key]
  local record = id and load_record(call, id)
  if not record then
    return nil
  end
  if is_gone(call, record) then
    record[S_KEY] = ''
    save(call, id)
    return nil
  end
  return id, record
end

local function stand(places, id, record)
  local index, score = index_of(record)
  local place = places[index]
  place[#place + 1], place[#place + 2] = score, id
end

-- Writes the places that were collected; answers an empty collection.
local function write_places(call, places)
  bulk('ZADD', call.keys[READY], places[READY] or {})
  bulk('ZADD', call.keys[DELAYED], places[DELAYED] or {})
  return { [READY] = {}, [DELAYED] = {} }
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
    local replaces = existing and argv[at + 10] == 'r' and seen[S_STATE] <= READY_STATE
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
      stand(places, id, record)
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
