-- Tasks of one shard. Every function is given all keys of its shard, in this order; none is made up inside, because a
-- key of a slot that moved fails in the middle of a call, and what was written before it stays.
--
-- Functions are not rolled back: each reads and checks first and writes afterwards, with commands on keys whose types
-- are ours. Numbers go to redis.call as numbers: text made of them keeps 14 digits.
local BODY, STATE, READY, DELAYED, LEASES, ENDED, DEAD, IDEM, EXTRA, META, CHANNEL = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11

-- Fields of a state record.
local S_STATE, S_BAND, S_SEQ, S_FAILED, S_EXPIRIES, S_KEPT_MS, S_DEAD_MS, S_READY_AT, S_UNTIL, S_CANCEL, S_REASON =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local S_MAX, S_RETRY, S_KEY, S_CREATED, S_TOKEN, S_LEASE_MS, S_STARTED, S_WORKER, S_ENDED, S_EXTRA =
  12, 13, 14, 15, 16, 17, 18, 19, 20, 21

-- Codes of states and reasons, as the server has them.
local DELAYED_STATE, READY_STATE, LEASED, COMPLETED, FAILED, DEAD_STATE, CANCELLED = 0, 1, 2, 3, 4, 5, 6
local EXHAUSTED, NON_RETRYABLE, QUARANTINED = 0, 1, 2
-- How a lease ended.
local NOT_YET, BY_COMPLETE, BY_FAIL, BY_RELEASE, BY_TIME = 0, 1, 2, 3, 4

-- Lua's unpack fails at about 8,000 values.
local SLICE = 1000
local BAND_WIDTH = 281474976710656 -- 2^48: a score is band * 2^48 + seq, exact in a double's 53 bits

-- One call: its keys, the store's time, and the shard's counters, read once and written once.
local function begin(keys)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local meta = redis.call('HMGET', keys[META], 'now', 'seq', 'c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6')
  local call = { keys = keys, now = math.max(now, tonumber(meta[1] or 0)), seq = tonumber(meta[2] or 0), counts = {},
    records = {}, changed = {}, order = {} }
  for state = 0, 6 do
    call.counts[state] = tonumber(meta[state + 3] or 0)
  end
  call.was_ready = call.counts[READY_STATE]
  return call
end

local function next_seq(call)
  call.seq = call.seq + 1
  return call.seq
end

local function load_record(call, id)
  local record = call.records[id]
  if record == nil then
    local packed = redis.call('HGET', call.keys[STATE], id)
    record = packed and cmsgpack.unpack(packed) or false
    call.records[id] = record
  end
  return record
end

local function load_records(call, ids)
  local wanted = {}
  for _, id in ipairs(ids) do
    if call.records[id] == nil then
      wanted[#wanted + 1] = id
    end
  end
  for first = 1, #wanted, SLICE do
    local last = math.min(first + SLICE - 1, #wanted)
    local found = redis.call('HMGET', call.keys[STATE], unpack(wanted, first, last))
    for at = first, last do
      local packed = found[at - first + 1]
      call.records[wanted[at]] = packed and cmsgpack.unpack(packed) or false
    end
  end
end

-- Records are written together at the end of a call.
local function save(call, id)
  if not call.changed[id] then
    call.changed[id] = true
    call.order[#call.order + 1] = id
  end
end

local function index(call, id, record)
  local keys = call.keys
  if record[S_STATE] == READY_STATE then
    redis.call('ZADD', keys[READY], record[S_BAND] * BAND_WIDTH + record[S_SEQ], id)
  elseif record[S_STATE] == DELAYED_STATE then
    redis.call('ZADD', keys[DELAYED], record[S_UNTIL], id)
  elseif record[S_STATE] == LEASED then
    redis.call('ZADD', keys[LEASES], record[S_UNTIL], id)
  elseif record[S_STATE] == DEAD_STATE then
    redis.call('ZADD', keys[DEAD], record[S_UNTIL] + record[S_DEAD_MS], id)
  else
    redis.call('ZADD', keys[ENDED], record[S_UNTIL] + record[S_KEPT_MS], id)
  end
end

local function unindex(call, id, record)
  if record[S_STATE] == READY_STATE then
    redis.call('ZREM', call.keys[READY], id)
  elseif record[S_STATE] == DELAYED_STATE then
    redis.call('ZREM', call.keys[DELAYED], id)
  elseif record[S_STATE] == LEASED then
    redis.call('ZREM', call.keys[LEASES], id)
  end
end

-- Takes a task out of its index before its record changes; `settle` puts it into its new one.
local function lift(call, id, record)
  unindex(call, id, record)
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] - 1
end

local function settle(call, id, record)
  index(call, id, record)
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] + 1
  save(call, id)
end

local function forget(call, id)
  local record = load_record(call, id)
  if record then
    redis.call('ZREM', call.keys[record[S_STATE] == DEAD_STATE and DEAD or ENDED], id)
    if record[S_KEY] ~= '' then
      redis.call('HDEL', call.keys[IDEM], record[S_KEY])
    end
    if record[S_EXTRA] == 1 then
      redis.call('HDEL', call.keys[EXTRA], id .. 'a', id .. 'p', id .. 'r')
    end
    call.counts[record[S_STATE]] = call.counts[record[S_STATE]] - 1
  end
  redis.call('HDEL', call.keys[BODY], id)
  redis.call('HDEL', call.keys[STATE], id)
  call.records[id] = false
  call.changed[id] = false
end

-- Removes a slice of what is past its retention.
local function forget_old(call, slice, kept_max)
  for _, key in ipairs({ ENDED, DEAD }) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', call.keys[key], '-inf', call.now, 'LIMIT', 0, slice)) do
      forget(call, id)
    end
  end
  local crowded = redis.call('ZCARD', call.keys[ENDED]) - kept_max
  if crowded > 0 then
    for _, id in ipairs(redis.call('ZRANGE', call.keys[ENDED], 0, math.min(crowded, slice) - 1)) do
      forget(call, id)
    end
  end
end

local function due_in(call, key)
  local first = redis.call('ZRANGE', call.keys[key], 0, 0, 'WITHSCORES')
  return first[2] and math.max(0, tonumber(first[2]) - call.now) or -1
end

-- Writes what changed, tells waiting claims, and answers {now, ready, next due, results}.
local function finish(call, results)
  local fields = {}
  for _, id in ipairs(call.order) do
    if call.changed[id] then
      fields[#fields + 1] = id
      fields[#fields + 1] = cmsgpack.pack(call.records[id])
    end
  end
  for first = 1, #fields, SLICE do
    redis.call('HSET', call.keys[STATE], unpack(fields, first, math.min(first + SLICE - 1, #fields)))
  end
  local counts = call.counts
  redis.call('HSET', call.keys[META], 'now', call.now, 'seq', call.seq, 'c0', counts[0], 'c1', counts[1], 'c2', counts[2],
    'c3', counts[3], 'c4', counts[4], 'c5', counts[5], 'c6', counts[6])
  local ready = counts[READY_STATE]
  if call.was_ready <= 0 and ready > 0 then
    redis.call('PUBLISH', call.keys[CHANNEL], '')
  end
  local delayed, leases = due_in(call, DELAYED), due_in(call, LEASES)
  local next_due = delayed
  if next_due < 0 or (leases >= 0 and leases < next_due) then
    next_due = leases
  end
  return { call.now, ready, next_due, results }
end

-- A task as the server reads it.
local function view(call, id, record, body)
  local attempts, progress, result = {}, false, false
  if record[S_EXTRA] == 1 then
    local extra = redis.call('HMGET', call.keys[EXTRA], id .. 'a', id .. 'p', id .. 'r')
    attempts = extra[1] and cmsgpack.unpack(extra[1]) or {}
    progress, result = extra[2], extra[3]
  end
  return { id, body, record[S_STATE], record[S_BAND], record[S_FAILED], record[S_EXPIRIES], record[S_MAX],
    record[S_CREATED], record[S_READY_AT], record[S_UNTIL], record[S_STARTED], record[S_TOKEN], record[S_WORKER],
    record[S_ENDED], record[S_CANCEL], record[S_REASON], record[S_KEY], progress, result, attempts }
end

local function view_of(call, id)
  local record = load_record(call, id)
  local body = record and redis.call('HGET', call.keys[BODY], id)
  return body and view(call, id, record, body) or false
end

-- ARGV: slice, kept_max, then for each task: id, payload, band, start (n|i|a), start ms, max attempts, retry, kept ms,
-- dead ms, key.
local function enqueue(keys, argv)
  local call = begin(keys)
  local slice, kept_max = tonumber(argv[1]), tonumber(argv[2])
  local results, bodies, keyed = {}, {}, {}
  for at = 3, #argv, 10 do
    local id, key = argv[at], argv[at + 9]
    local existing = key ~= '' and (keyed[key] or redis.call('HGET', keys[IDEM], key)) or false
    local seen = existing and load_record(call, existing)
    if seen then
      local body = redis.call('HGET', keys[BODY], existing) or bodies[existing]
      results[#results + 1] = { 'E', view(call, existing, seen, body) }
    elseif load_record(call, id) then
      results[#results + 1] = 'T'
    else
      local ready_at = call.now
      if argv[at + 3] == 'i' then
        ready_at = call.now + tonumber(argv[at + 4])
      elseif argv[at + 3] == 'a' then
        ready_at = math.max(call.now, tonumber(argv[at + 4]))
      end
      local state = ready_at > call.now and DELAYED_STATE or READY_STATE
      call.records[id] = { state, tonumber(argv[at + 2]), next_seq(call), 0, 0, tonumber(argv[at + 7]),
        tonumber(argv[at + 8]), ready_at, ready_at, 0, -1, tonumber(argv[at + 5]), argv[at + 6], key, call.now, '', 0, -1, '',
        NOT_YET, 0 }
      bodies[id] = argv[at + 1]
      if key ~= '' then
        keyed[key] = id
      end
      save(call, id)
      results[#results + 1] = { 'N', state, ready_at }
    end
  end
  for id, body in pairs(bodies) do
    local record = call.records[id]
    redis.call('HSET', keys[BODY], id, body)
    index(call, id, record)
    call.counts[record[S_STATE]] = call.counts[record[S_STATE]] + 1
    if record[S_KEY] ~= '' then
      redis.call('HSET', keys[IDEM], record[S_KEY], id)
    end
  end
  forget_old(call, slice, kept_max)
  return finish(call, results)
end

-- Ends a lease without success: `next` is 'same', 'at' (with a time) or 'dead' (with a reason).
local function end_lease(call, id, record, how, next, value)
  lift(call, id, record)
  record[S_ENDED] = how
  if record[S_CANCEL] == 1 then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  elseif next == 'same' then
    record[S_STATE], record[S_READY_AT] = READY_STATE, call.now
  elseif next == 'at' then
    record[S_STATE] = value > call.now and DELAYED_STATE or READY_STATE
    record[S_SEQ], record[S_READY_AT], record[S_UNTIL] = next_seq(call), value, value
  else
    record[S_STATE] = record[S_DEAD_MS] > 0 and DEAD_STATE or FAILED
    record[S_REASON], record[S_UNTIL] = value, call.now
  end
  settle(call, id, record)
end

-- Moves a slice of due delays to ready, in the order in which they fell due, and a slice of expired leases back.
local function move_due(call, slice, expiries_max)
  local due = redis.call('ZRANGEBYSCORE', call.keys[DELAYED], '-inf', call.now, 'LIMIT', 0, slice)
  load_records(call, due)
  table.sort(due, function(a, b)
    local left, right = call.records[a], call.records[b]
    if left[S_UNTIL] ~= right[S_UNTIL] then
      return left[S_UNTIL] < right[S_UNTIL]
    end
    return left[S_SEQ] < right[S_SEQ]
  end)
  for _, id in ipairs(due) do
    local record = call.records[id]
    lift(call, id, record)
    record[S_STATE], record[S_SEQ] = READY_STATE, next_seq(call)
    settle(call, id, record)
  end
  local expired = redis.call('ZRANGEBYSCORE', call.keys[LEASES], '-inf', call.now, 'LIMIT', 0, slice)
  load_records(call, expired)
  for _, id in ipairs(expired) do
    local record = call.records[id]
    record[S_EXPIRIES] = record[S_EXPIRIES] + 1
    if record[S_EXPIRIES] >= expiries_max then
      end_lease(call, id, record, BY_TIME, 'dead', QUARANTINED)
    else
      end_lease(call, id, record, BY_TIME, 'same')
    end
  end
end

local function claim(call, max, bytes_max, lease_ms, token, worker)
  local ids = redis.call('ZRANGE', call.keys[READY], 0, max - 1)
  if #ids == 0 then
    return { 'C', {} }
  end
  load_records(call, ids)
  local bodies = redis.call('HMGET', call.keys[BODY], unpack(ids))
  local tasks, bytes = {}, 0
  for at, id in ipairs(ids) do
    bytes = bytes + #bodies[at]
    if at > 1 and bytes > bytes_max then
      break
    end
    local record = call.records[id]
    lift(call, id, record)
    record[S_STATE], record[S_UNTIL], record[S_TOKEN], record[S_LEASE_MS] = LEASED, call.now + lease_ms, token, lease_ms
    record[S_STARTED], record[S_WORKER], record[S_ENDED] = call.now, worker, NOT_YET
    settle(call, id, record)
    tasks[at] = view(call, id, record, bodies[at])
  end
  return { 'C', tasks }
end

-- The record if the token holds the lease, else nil and what to answer: a repeat of what ended it succeeds.
local function held(call, id, token, how)
  local record = load_record(call, id)
  if not record then
    return nil, 'M'
  end
  if record[S_TOKEN] ~= token then
    return nil, 'L'
  end
  if record[S_STATE] == LEASED and record[S_ENDED] == NOT_YET then
    return record
  end
  return nil, record[S_ENDED] == how and 'repeat' or 'L'
end

local function put_extra(call, id, record, suffix, value)
  redis.call('HSET', call.keys[EXTRA], id .. suffix, value)
  record[S_EXTRA] = 1
end

local function complete(call, id, token, has_result, result)
  local record, refused = held(call, id, token, BY_COMPLETE)
  if not record then
    return refused == 'repeat' and { 'D' } or refused
  end
  if has_result == '1' then
    put_extra(call, id, record, 'r', result)
  end
  lift(call, id, record)
  record[S_STATE], record[S_UNTIL], record[S_ENDED] = COMPLETED, call.now, BY_COMPLETE
  settle(call, id, record)
  return { 'D' }
end

-- 'e,delay,max,jitter', 'f,delay,jitter' or 'l,d1,d2,..,jitter': the delay after attempt `number`.
local function backoff(retry, number, dice)
  local parts = {}
  for part in string.gmatch(retry, '[^,]+') do
    parts[#parts + 1] = part
  end
  local jitter, full = tonumber(parts[#parts])
  if parts[1] == 'e' then
    full = math.min(tonumber(parts[2]) * 2 ^ math.min(number - 1, 40), tonumber(parts[3]))
  elseif parts[1] == 'f' then
    full = tonumber(parts[2])
  else
    full = tonumber(parts[math.min(number, #parts - 2) + 1])
  end
  local span = math.floor(full * jitter / 1000)
  return full - math.floor(span * math.floor(dice / 65536) / 65536)
end

local function failed_answer(record)
  local queued = record[S_STATE] == DELAYED_STATE or record[S_STATE] == READY_STATE
  return { 'F', record[S_STATE], queued and record[S_READY_AT] or -1 }
end

local function fail(call, id, token, retryable, delay_ms, dice, err)
  local record, refused = held(call, id, token, BY_FAIL)
  if not record then
    return refused == 'repeat' and failed_answer(load_record(call, id)) or refused
  end
  local number = record[S_FAILED] + 1
  local packed = redis.call('HGET', call.keys[EXTRA], id .. 'a')
  local attempts = packed and cmsgpack.unpack(packed) or {}
  attempts[#attempts + 1] = { number, call.now, record[S_WORKER], err }
  put_extra(call, id, record, 'a', cmsgpack.pack(attempts))
  record[S_FAILED] = number
  if retryable ~= '1' then
    end_lease(call, id, record, BY_FAIL, 'dead', NON_RETRYABLE)
  elseif number >= record[S_MAX] then
    end_lease(call, id, record, BY_FAIL, 'dead', EXHAUSTED)
  else
    local delay = delay_ms >= 0 and delay_ms or backoff(record[S_RETRY], number, dice)
    end_lease(call, id, record, BY_FAIL, 'at', call.now + delay)
  end
  return failed_answer(record)
end

local function release(call, id, token, delay_ms)
  local record, refused = held(call, id, token, BY_RELEASE)
  if not record then
    return refused == 'repeat' and { 'R' } or refused
  end
  if delay_ms > 0 then
    end_lease(call, id, record, BY_RELEASE, 'at', call.now + delay_ms)
  else
    end_lease(call, id, record, BY_RELEASE, 'same')
  end
  return { 'R' }
end

local function heartbeat(call, id, token, extend_ms, has_progress, progress)
  local record, refused = held(call, id, token, NOT_YET)
  if not record then
    return refused == 'repeat' and 'L' or refused
  end
  if has_progress == '1' then
    put_extra(call, id, record, 'p', progress)
  end
  lift(call, id, record)
  record[S_UNTIL] = call.now + (extend_ms >= 0 and extend_ms or record[S_LEASE_MS])
  settle(call, id, record)
  return { 'H', record[S_UNTIL], record[S_CANCEL] }
end

local function cancel(call, id)
  local record = load_record(call, id)
  if not record then
    return 'M'
  end
  if record[S_STATE] > LEASED then
    return 'A'
  end
  lift(call, id, record)
  record[S_CANCEL] = 1
  if record[S_STATE] ~= LEASED then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  end
  settle(call, id, record)
  return { 'X', view_of(call, id) }
end

-- ARGV: slice, kept_max, expiries_max, bytes_max, then operations, each a letter and its arguments.
local function work(keys, argv)
  local call = begin(keys)
  local slice = tonumber(argv[1])
  local results, swept, at = {}, false, 5
  while at <= #argv do
    local kind = argv[at]
    local id, token = argv[at + 1], argv[at + 2]
    local result
    if kind == 'C' then
      if not swept then
        move_due(call, slice, tonumber(argv[3]))
        swept = true
      end
      result = claim(call, tonumber(argv[at + 1]), tonumber(argv[4]), tonumber(argv[at + 2]), argv[at + 3], argv[at + 4])
      at = at + 5
    elseif kind == 'D' then
      result = complete(call, id, token, argv[at + 3], argv[at + 4])
      at = at + 5
    elseif kind == 'F' then
      result = fail(call, id, token, argv[at + 3], tonumber(argv[at + 4]), tonumber(argv[at + 5]), argv[at + 6])
      at = at + 7
    elseif kind == 'R' then
      result = release(call, id, token, tonumber(argv[at + 3]))
      at = at + 4
    elseif kind == 'H' then
      result = heartbeat(call, id, token, tonumber(argv[at + 3]), argv[at + 4], argv[at + 5])
      at = at + 6
    else
      result = cancel(call, id)
      at = at + 2
    end
    results[#results + 1] = result
  end
  forget_old(call, slice, tonumber(argv[2]))
  return finish(call, results)
end

local function get(keys, argv)
  return view_of(begin(keys), argv[1])
end

local function counts(keys)
  local call = begin(keys)
  local first = redis.call('ZRANGE', keys[READY], 0, 0)[1]
  local record = first and load_record(call, first)
  local answer = { call.now, record and record[S_READY_AT] or -1 }
  for state = 0, 6 do
    answer[state + 3] = call.counts[state]
  end
  return answer
end

-- KEYS: numbers by path, paths by number. ARGV: path, most queues, numbers there are. Answers the number, or 0 when there
-- are too many queues. Numbers are scattered by the clock and not counted up: where the registry lost its last queues, or
-- all, a server that still knows one of them must not share its number with a new one.
local function open(keys, argv)
  local known = redis.call('HGET', keys[1], argv[1])
  if known then
    return tonumber(known)
  end
  local queues, numbers = redis.call('HLEN', keys[1]), tonumber(argv[3])
  if queues >= tonumber(argv[2]) then
    return 0
  end
  local time = redis.call('TIME')
  local number = (tonumber(time[1]) * 1000003 + tonumber(time[2]) * 7919 + queues) % numbers + 1
  while redis.call('HEXISTS', keys[2], number) == 1 do
    number = number % numbers + 1
  end
  redis.call('HSET', keys[1], argv[1], number)
  redis.call('HSET', keys[2], number, argv[1])
  return number
end

redis.register_function('PREFIX_enqueue', enqueue)
redis.register_function { function_name = 'PREFIX_work', callback = work, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_get', callback = get, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_counts', callback = counts, flags = { 'no-writes' } }
redis.register_function('PREFIX_open', open)
