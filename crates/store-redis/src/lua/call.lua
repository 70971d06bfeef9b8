local DEFAULT_POLICY = { -1, -1, -1, AGING_MS, EXPIRIES_MAX, KEPT_MAX, RETRY_DEFAULT, KEPT_MS_DEFAULT, DEAD_MS_DEFAULT, -1 }

-- A policy that cannot be read is the default one.
local function read_policy(packed)
  local read, policy = pcall(cmsgpack.unpack, packed or '')
  for field, default in ipairs(DEFAULT_POLICY) do
    if not read or type(policy) ~= 'table' or type(policy[field]) ~= type(default) then
      return DEFAULT_POLICY
    end
  end
  return policy
end

-- What tasks with keys meet: `fair.lua` and `gates.lua` say what.
local fair, gates = {}, {}

local function in_flight_left(call)
  local most = call.policy[P_IN_FLIGHT]
  return most < 0 and math.huge or math.max(0, most - call.counts[LEASED])
end

local function next_seq(call)
  call.seq = call.seq + 1
  return call.seq
end

-- What cannot be read as a record is none.
local function read_record(packed)
  if not packed then
    return false
  end
  local read, record = pcall(cmsgpack.unpack, packed)
  return read and type(record) == 'table' and #record >= S_EXTRA and record
end

-- A pause that cannot be read goes on all the same: only a person ends it.
local function read_pause(packed)
  local read, pause = pcall(cmsgpack.unpack, packed)
  return read and type(pause) == 'table' and #pause == 3 and pause or { 0, '', 'unreadable' }
end

-- What a manifest declared last: epoch, generation, whether paused. What cannot be read is followed by whatever comes next.
local function read_declared(packed)
  local read, declared = pcall(cmsgpack.unpack, packed or '')
  return read and type(declared) == 'table' and #declared == 3 and declared or { 0, 0, 0 }
end

local function load_record(call, id)
  local record = call.records[id]
  if record == nil then
    record = read_record(redis.call('HGET', call.keys[STATE], id))
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
      call.records[wanted[at]] = read_record(found[at - first + 1])
    end
  end
end

-- When a task may start by the rate, in microseconds: one above the burst waits for a full bucket.
local function start_us(call, record)
  local ahead = math.max(0, call.policy[P_BURST] - (record[S_COST] or 1))
  return call.paid - ahead * call.policy[P_INTERVAL_US]
end

local function may_start(call, record)
  return in_flight_left(call) > 0 and (call.policy[P_INTERVAL_US] < 0 or start_us(call, record) <= call.now * 1000)
end

-- Takes the tokens of a task that starts.
local function pay(call, record)
  if call.policy[P_INTERVAL_US] > 0 then
    call.paid = math.max(call.paid, call.now * 1000) + (record[S_COST] or 1) * call.policy[P_INTERVAL_US]
  end
end

local function first_score(call, key)
  local first = redis.call('ZRANGE', call.keys[key], 0, 0, 'WITHSCORES')
  return first[2] and tonumber(first[2]) or -1
end

-- Whether the next pick looks for one that has waited too long.
local function is_out_of_turn(call)
  return (call.picks + 1) % AGING_PICKS == 0
end

-- Of the heads of lower bands the one that has been ready longest, if that is long enough.
local function aged_head(call)
  local first, last = first_score(call, READY), redis.call('ZRANGE', call.keys[READY], -1, -1, 'WITHSCORES')
  if first < 0 then
    return nil
  end
  local oldest, aged
  for band = math.floor(first / BAND_WIDTH) + 1, math.floor(tonumber(last[2]) / BAND_WIDTH) do
    local head = redis.call('ZRANGEBYSCORE', call.keys[READY], band * BAND_WIDTH, (band + 1) * BAND_WIDTH - 1, 'LIMIT', 0, 1)
    local record = head[1] and load_record(call, head[1])
    local ready_at = record and record[S_READY_AT]
    if ready_at and ready_at <= call.now - call.policy[P_AGING_MS] and (not oldest or ready_at < oldest) then
      oldest, aged = ready_at, head[1]
    end
  end
  return aged
end

-- When the task that the next pick takes may start, where only the rate holds it back: its time in ms, or nil. Second, how many
-- tasks a claim may have.
local function next_token(call)
  local startable = math.min(call.paused and 0 or call.counts[READY_STATE], in_flight_left(call))
  if startable <= 0 or call.policy[P_INTERVAL_US] < 0 then
    return nil, startable
  end
  local head = is_out_of_turn(call) and aged_head(call) or redis.call('ZRANGE', call.keys[READY], 0, 0)[1]
  local record = head and load_record(call, head)
  if not record then
    return nil, startable
  end
  local start, now_us, interval = start_us(call, record), call.now * 1000, call.policy[P_INTERVAL_US]
  if start > now_us then
    return math.ceil(start / 1000), 0
  end
  local owed = math.max(0, call.paid - now_us)
  return nil, math.min(startable, math.max(1, math.floor((call.policy[P_BURST] * interval - owed) / interval)))
end

-- How many tasks a claim may have: those that are ready, as far as pause, limit and rate let them start.
local function available(call)
  local _, tasks = next_token(call)
  return tasks
end

-- One call: its keys, the store's time, and META, read once and written once, but for pauses. With a path, META must hold
-- it: Redis may have been emptied, or come back older, since the server learned the shard's number.
local function begin(keys, path)
  local meta = redis.call('HMGET', keys[META], 'now', 'wall', 'seq', 'picks', 'due', 'path', 'schema', 'c0', 'c1', 'c2',
    'c3', 'c4', 'c5', 'c6', 'of', 'paused', 'resumed', 'deadline', 'claimed', 'policy', 'paid')
  local schema = tonumber(meta[7] or SCHEMA_OF_NEW)
  if schema > SCHEMA then
    return nil, redis.error_reply(string.format('NEWER %d', schema))
  end
  if path and meta[6] ~= path then
    return nil, redis.error_reply('UNKNOWNQUEUE under this number')
  end
  local now, wall, behind = store_time(meta[1], meta[2], meta[15])
  local call = { keys = keys, now = now, wall = wall, touched = behind, seq = tonumber(meta[3] or 0),
    picks = tonumber(meta[4] or 0), due = tonumber(meta[5] or -1), counts = {}, records = {}, changed = {}, order = {},
    bytes = 0, finals = 0, ended = {}, corrupt = {}, schema = schema, paused = meta[16],
    resumed = tonumber(meta[17] or -1), deadline = tonumber(meta[18] or -1), claimed = tonumber(meta[19] or -1),
    policy = meta[20] and read_policy(meta[20]) or DEFAULT_POLICY, paid = tonumber(meta[21] or 0) }
  for state = 0, 6 do
    call.counts[state] = tonumber(meta[state + 8] or 0)
  end
  call.counts[BLOCKED_STATE], call.gate_due, call.idle_due = 0, -1, -1
  call.places, call.gates, call.gates_changed, call.gates_order = {}, {}, {}, {}
  if schema >= SCHEMA_OF_KEYS then
    local keyed = redis.call('HMGET', keys[META], 'c7', 'fair', 'gate_due', 'idle_due', 'unlooked')
    local since = tonumber(keyed[2] or -1)
    call.counts[BLOCKED_STATE], call.fair = tonumber(keyed[1] or 0), since >= 0 and since or nil
    call.gate_due, call.idle_due, call.unlooked = tonumber(keyed[3] or -1), tonumber(keyed[4] or -1), keyed[5] or nil
    call.had_unlooked = call.unlooked
  end
  call.was_available, call.had_deadline, call.had_paid = available(call), call.deadline, call.paid
  return call
end

-- A library that would not keep right what is written is kept from the shard from now on.
local function raise(call, schema)
  if call.schema < schema then
    call.schema, call.touched = schema, true
    redis.call('HSET', call.keys[META], 'schema', schema)
  end
end

-- Records are written together at the end of a call.
local function save(call, id)
  call.touched = true
  if not call.changed[id] then
    call.changed[id] = true
    call.order[#call.order + 1] = id
  end
end

local function is_final(record)
  return record[S_STATE] > LEASED and record[S_STATE] ~= BLOCKED_STATE
end

-- Whether it waits to be claimed, now or later.
local function is_queued(record)
  return record[S_STATE] <= READY_STATE or record[S_STATE] == BLOCKED_STATE
end

local function is_keyed(record)
  return record[S_HOLDS] and record[S_HOLDS] >= 0
end

-- Its place among the ready ones of its band, or in a line.
local function tag_of(record)
  local tag = record[S_TAG]
  return tag and tag >= 0 and tag or record[S_SEQ]
end

local function forget_place(record)
  if record[S_TAG] then
    record[S_TAG] = -1
  end
end

-- Sets a field that most records lack. Those before it are none then, but for the cost, which every task has.
local function set_rare(record, field, value)
  for at = S_ALWAYS + 1, field - 1 do
    record[at] = record[at] or at == S_COST and 1 or -1
  end
  record[field] = value
end

-- The deadline of a task that nobody holds: it stands among the deadlines then.
local function awaited_deadline(record)
  local at = is_queued(record) and record[S_DEADLINE]
  return at and at >= 0 and at or nil
end

local function is_overdue(call, record)
  local at = record[S_DEADLINE]
  return at and at >= 0 and at <= call.now
end

-- End of a final task's retention.
local function kept_until(record)
  return record[S_UNTIL] + record[record[S_STATE] == DEAD_STATE and S_DEAD_MS or S_KEPT_MS]
end

-- A task past its retention is gone for whoever asks, though its record is kept until it is swept.
local function is_gone(call, record)
  return is_final(record) and kept_until(record) <= call.now
end

-- Until when the record of a final task is kept: the end of its lease is remembered for a while in any case.
local function remembered_until(record)
  return math.max(kept_until(record), record[S_UNTIL] + REMEMBERED_MS)
end

local function is_forgotten(call, record)
  return is_final(record) and remembered_until(record) <= call.now
end

local function index_of(record)
  local state = record[S_STATE]
  if state == READY_STATE then
    return READY, record[S_BAND] * BAND_WIDTH + tag_of(record)
  elseif state == DELAYED_STATE then
    return DELAYED, record[S_UNTIL]
  elseif state == LEASED then
    return LEASES, record[S_UNTIL]
  elseif state == BLOCKED_STATE then
    return BLOCKED, record[S_SEQ]
  end
  return state == DEAD_STATE and DEAD or ENDED, remembered_until(record)
end

-- Places that are written together, by index; members of LINES have no score of their own.
local function collect(call, index, score, member)
  local places = call.places[index] or {}
  call.places[index] = places
  places[#places + 1], places[#places + 2] = score, member
end

-- Writes the places that were collected: before somebody looks at them, and at the end.
local function write_places(call)
  for index, places in pairs(call.places) do
    bulk('ZADD', call.keys[index], places)
  end
  call.places = {}
end

-- Takes a task out of its index for another under its id; its gates are left by `gates.drop`.
local function remove_from_index(call, id, record)
  redis.call('ZREM', call.keys[index_of(record)], id)
  if awaited_deadline(record) then
    redis.call('ZREM', call.keys[DEADLINES], id)
  end
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] - 1
end

-- Takes a task out of its index before its record changes; `settle` puts it into its new one. Answers its state and what it holds.
local function lift(call, id, record)
  if is_keyed(record) or call.fair then
    gates.leave(call, id, record)
  end
  remove_from_index(call, id, record)
  return record[S_STATE], record[S_HOLDS] or 0
end

-- Puts a task into its index, which is written with others.
local function stand(call, id, record)
  local index, score = index_of(record)
  collect(call, index, score, id)
  local deadline, member = awaited_deadline(record), is_keyed(record) and gates.enter(call, id, record)
  if deadline then
    collect(call, DEADLINES, deadline, id)
    call.deadline = earlier(call.deadline, deadline)
  end
  if member then
    collect(call, LINES, 0, member)
  end
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] + 1
  save(call, id)
end

-- Puts a task where it belongs by its record: one that is ready, where its gates have it. What it holds no more of `holds` is
-- handed on. `was` is the state that `lift` answered, `passed` the gate that has just let it through.
local function settle(call, id, record, was, holds, passed)
  local freed = 0
  if is_keyed(record) then
    record[S_HOLDS] = is_final(record) and 0 or record[S_HOLDS]
    freed = gates.freed(record, holds)
    gates.give_up(call, record, freed)
  end
  if is_keyed(record) or call.fair then
    if record[S_STATE] == READY_STATE then
      gates.admit(call, id, record, passed)
    elseif record[S_STATE] == LEASED and was == READY_STATE then
      gates.claimed(call, record)
    end
  end
  stand(call, id, record)
  write_places(call)
  if is_final(record) then
    call.finals = call.finals + 1
  end
  if is_keyed(record) then
    gates.hand_on(call, record, freed)
  end
end

local function die(call, record, reason)
  record[S_STATE] = record[S_DEAD_MS] > 0 and DEAD_STATE or FAILED
  record[S_REASON], record[S_UNTIL] = reason, call.now
end

-- A task that stands in an index for `state` and whose record or body cannot be read costs itself, not its queue: it
-- becomes a dead letter.
local function bury(call, id, key, state)
  local record, was, holds = load_record(call, id), state, 0
  if record and index_of(record) == key then
    was, holds = lift(call, id, record)
  else
    redis.call('ZREM', call.keys[key], id)
    call.counts[state] = call.counts[state] - 1
  end
  if record and awaited_deadline(record) then
    redis.call('ZREM', call.keys[DEADLINES], id)
  end
  if not record then
    record = { DEAD_STATE, 9, 0, 0, 0, 0, CORRUPT_KEPT_MS, call.now, call.now, 0, CORRUPT, 1, 'f,0,0', '', call.now, '', 0,
      -1, '', BY_TIME, 0 }
    call.records[id] = record
  end
  die(call, record, CORRUPT)
  record[S_ENDED] = BY_TIME
  redis.call('HSETNX', call.keys[BODY], id, 'null')
  settle(call, id, record, was, holds)
  call.ended[#call.ended + 1] = id
  call.corrupt[#call.corrupt + 1] = id
end
