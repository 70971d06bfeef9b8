-- Attempts, progress and result as they lie, and their bytes.
local function extra_of(call, id, record)
  if record[S_EXTRA] ~= 1 then
    return {}, 0
  end
  local extra = redis.call('HMGET', call.keys[EXTRA], id .. 'a', id .. 'p', id .. 'r')
  return extra, #(extra[1] or '') + #(extra[2] or '') + #(extra[3] or '')
end

local function read_attempts(packed)
  local read, attempts = pcall(cmsgpack.unpack, packed or '')
  return read and type(attempts) == 'table' and attempts or {}
end

-- One of a task's keys, '' without one.
local function key_of(record, field)
  local key = record[field]
  return key and key ~= -1 and key or ''
end

-- A task as the server reads it.
local function view(id, record, body, extra)
  return { id, body, record[S_STATE], record[S_BAND], record[S_FAILED], record[S_EXPIRIES], record[S_MAX],
    record[S_CREATED], record[S_READY_AT], record[S_UNTIL], record[S_STARTED], record[S_TOKEN], record[S_WORKER],
    record[S_ENDED], record[S_CANCEL], record[S_REASON], record[S_KEY], extra[2] or false, extra[3] or false,
    read_attempts(extra[1]), record[S_DEADLINE] or -1, record[S_BEAT] or -1,
    record[S_GATE] or -1, key_of(record, S_ORDERING), key_of(record, S_LIMIT), key_of(record, S_FAIRNESS) }
end

-- The task without what can be large: a thousand of them fit one answer.
local function outline(id, record)
  return view(id, record, '', {})
end

do
-- The task, by its id; `remembered` finds one past its retention too while the end of its lease is remembered.
local function find(keys, argv, remembered)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local record = load_record(call, argv[1])
  local is_over = remembered and is_forgotten or is_gone
  if not record or is_over(call, record) then
    return false
  end
  local body = redis.call('HGET', keys[BODY], argv[1])
  return body and view(argv[1], record, body, (extra_of(call, argv[1], record)))
end

local function get(keys, argv)
  return find(keys, argv, false)
end

local function outcome(keys, argv)
  return find(keys, argv, true)
end

local function counts(keys)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local first = redis.call('ZRANGE', keys[READY], 0, 0)[1]
  local record = first and load_record(call, first)
  local answer = { call.now, record and record[S_READY_AT] or -1 }
  for state = 0, BLOCKED_STATE do
    answer[state + 3] = call.counts[state]
  end
  answer[11] = call.paused and read_pause(call.paused)
  answer[12] = call.claimed
  answer[13] = call.policy ~= DEFAULT_POLICY and call.policy
  answer[14] = next_token(call) or -1
  local declared = redis.call('HGET', keys[META], 'declared')
  answer[15] = declared and read_declared(declared)
  answer[16] = call.schema >= SCHEMA_OF_KEYS and gates.by_key(call).by_key
  return answer
end

redis.register_function { function_name = 'PREFIX_get', callback = get, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_outcome', callback = outcome, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_counts', callback = counts, flags = { 'no-writes' } }
end
