local SCHEMA = 4
local SCHEMA_OF_NEW = 1
local SCHEMA_OF_PAUSES = 2
local SCHEMA_OF_DEADLINES = 3
local SCHEMA_OF_POLICIES = 4
local LIST_LOOKED_AT_MAX = 1000
local HISTORY_MAX = 200
local POSITION_MAX = 10000
local SWEEP_SLICE = 256
local KEPT_MAX = 200000
local EXPIRIES_MAX = 5
local CLAIM_MAX_BYTES = 16777216
local ANSWER_MAX_BYTES = 33554432
local PAYLOAD_MAX_BYTES = 1048576
local REMEMBERED_MS = 2000
local TAKEN_MS = 300
local AGING_MS = 60000
local AGING_PICKS = 8
local CORRUPT_KEPT_MS = 1209600000
local KEPT_MS_DEFAULT = 3600000
local DEAD_MS_DEFAULT = 1209600000
local QUEUES_PER_TENANT_MAX = 10000
local QUEUES_MAX = 100000
local NUMBERS_MAX = 16777215
local RETRY_DEFAULT = 'e,1000,300000,200'
-- Tasks of one shard. A function is given all keys that it touches; none is made up inside, because a key of a slot that
-- moved fails in the middle of a call, and what was written before it stays.
--
-- Functions are not rolled back: each reads and checks first and writes afterwards, with commands on keys whose types
-- are ours and rights that `ready` has checked. Numbers go to redis.call as numbers: text made of them keeps 14 digits.
--
-- Servers of two versions share a Redis during a rollout: a META without the younger fields works, and the older
-- library leaves fields alone that it does not know.
local BODY, STATE, READY, DELAYED, LEASES, ENDED, DEAD, IDEM, EXTRA, DEADLINES, META, CHANNEL =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12

-- Fields of a state record.
local S_STATE, S_BAND, S_SEQ, S_FAILED, S_EXPIRIES, S_KEPT_MS, S_DEAD_MS, S_READY_AT, S_UNTIL, S_CANCEL, S_REASON =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local S_MAX, S_RETRY, S_KEY, S_CREATED, S_TOKEN, S_LEASE_MS, S_STARTED, S_WORKER, S_ENDED, S_EXTRA =
  12, 13, 14, 15, 16, 17, 18, 19, 20, 21
-- Those that most tasks lack; -1 is none. The deadline, from when on the key is free, and the deadline as it was asked for.
-- When its holder sent a heartbeat last.
-- What its start takes of the rate's tokens, 1 where that is not said.
local S_DEADLINE, S_KEY_UNTIL, S_DEADLINE_MS, S_BEAT, S_COST = 22, 23, 24, 25, 26
local S_ALWAYS = 21
-- The key was given to another task since.
local GIVEN_UP = 0

-- Codes of states and reasons, as the server has them.
local DELAYED_STATE, READY_STATE, LEASED, COMPLETED, FAILED, DEAD_STATE, CANCELLED = 0, 1, 2, 3, 4, 5, 6
local EXHAUSTED, NON_RETRYABLE, QUARANTINED, CORRUPT, OVERDUE = 0, 1, 2, 3, 4
-- How a lease ended; a heartbeat ends none.
local NOT_YET, BY_COMPLETE, BY_FAIL, BY_RELEASE, BY_TIME, BY_HEARTBEAT = 0, 1, 2, 3, 4, -1

-- Fields of a queue's policy; -1 where there is no such limit.
local P_IN_FLIGHT, P_INTERVAL_US, P_BURST, P_AGING_MS, P_EXPIRIES_MAX, P_KEPT_MAX, P_RETRY, P_KEPT_MS, P_DEAD_MS, P_MILLI =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10

-- Lua's unpack fails at about 8,000 values. Even, so that no pair is cut.
local SLICE = 1000
-- Bodies that a claim reads at a time, fewer where the largest of them do not fit one answer: what lies behind its byte limit
-- is read for nothing.
local BODIES_AT_A_TIME = 32
-- Delays of one millisecond that are moved together, so that they keep the order of their enqueues.
local TIES_MAX = 2048
local BAND_WIDTH = 281474976710656 -- 2^48: a score is band * 2^48 + seq, exact in a double's 53 bits

-- The store's time in ms, given what META says of the last call that wrote it: the wall clock, or, while that lies behind
-- the store's time, the last value and what the wall has gone on since. Second, the wall; third, whether it is behind.
-- `of` is the store's time that the wall was written with: an older library writes the one alone, and for how long the wall
-- has gone on since then is not known.
local function store_time(last, wall_then, of)
  local time = redis.call('TIME')
  local wall = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  last = tonumber(last or 0)
  if wall >= last then
    return wall, wall, false
  end
  local since = tonumber(of) == last and wall - tonumber(wall_then or wall) or 0
  return last + math.max(0, since), wall, true
end

-- The earlier of two times, -1 standing for none.
local function earlier(a, b)
  if a < 0 or (b >= 0 and b < a) then
    return b
  end
  return a
end

-- A command with more arguments than unpack takes, on one key.
local function bulk(command, key, args)
  for first = 1, #args, SLICE do
    redis.call(command, key, unpack(args, first, math.min(first + SLICE - 1, #args)))
  end
end

-- A message that nobody is allowed to send or to hear fails nothing: tasks were written before it.
local function publish(channel, text)
  redis.pcall('PUBLISH', channel, text)
end
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
  return record[S_STATE] > LEASED
end

-- Sets a field that most records lack.
local function set_rare(record, field, value)
  for at = S_ALWAYS + 1, field - 1 do
    record[at] = record[at] or -1
  end
  record[field] = value
end

-- The deadline of a task that nobody holds: it stands among the deadlines then.
local function awaited_deadline(record)
  local at = record[S_STATE] <= READY_STATE and record[S_DEADLINE]
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
    return READY, record[S_BAND] * BAND_WIDTH + record[S_SEQ]
  elseif state == DELAYED_STATE then
    return DELAYED, record[S_UNTIL]
  elseif state == LEASED then
    return LEASES, record[S_UNTIL]
  end
  return state == DEAD_STATE and DEAD or ENDED, remembered_until(record)
end

-- Takes a task out of its index before its record changes; `settle` puts it into its new one.
local function lift(call, id, record)
  redis.call('ZREM', call.keys[index_of(record)], id)
  if awaited_deadline(record) then
    redis.call('ZREM', call.keys[DEADLINES], id)
  end
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] - 1
end

local function settle(call, id, record)
  local key, score = index_of(record)
  redis.call('ZADD', call.keys[key], score, id)
  local deadline = awaited_deadline(record)
  if deadline then
    redis.call('ZADD', call.keys[DEADLINES], deadline, id)
    call.deadline = earlier(call.deadline, deadline)
  end
  call.counts[record[S_STATE]] = call.counts[record[S_STATE]] + 1
  if is_final(record) then
    call.finals = call.finals + 1
  end
  save(call, id)
end

local function die(call, record, reason)
  record[S_STATE] = record[S_DEAD_MS] > 0 and DEAD_STATE or FAILED
  record[S_REASON], record[S_UNTIL] = reason, call.now
end

-- A task that stands in an index for `state` and whose record or body cannot be read costs itself, not its queue: it
-- becomes a dead letter.
local function bury(call, id, key, state)
  redis.call('ZREM', call.keys[key], id)
  call.counts[state] = call.counts[state] - 1
  local record = load_record(call, id)
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
  settle(call, id, record)
  call.ended[#call.ended + 1] = id
  call.corrupt[#call.corrupt + 1] = id
end
-- Adds the fields of what a task has in EXTRA: attempts, progress and result.
local function name_extra(fields, id, record)
  if record[S_EXTRA] == 1 then
    for _, suffix in ipairs({ 'a', 'p', 'r' }) do
      fields[#fields + 1] = id .. suffix
    end
  end
end

-- Forgets tasks that stand in `key`, ENDED or DEAD. What stands there without a record, or as a live task, is damage: its
-- place goes, and with it only what nobody can reach.
local function forget(call, key, ids)
  if #ids == 0 then
    return
  end
  load_records(call, ids)
  local gone, idem, extra, deadlines = {}, {}, {}, {}
  for _, id in ipairs(ids) do
    local record = call.records[id]
    if not record or index_of(record) == key then
      gone[#gone + 1] = id
      call.records[id] = false
      call.changed[id] = false
      if record then
        call.counts[record[S_STATE]] = call.counts[record[S_STATE]] - 1
        if record[S_KEY] ~= '' and record[S_KEY_UNTIL] ~= GIVEN_UP then
          idem[#idem + 1] = record[S_KEY]
        end
        name_extra(extra, id, record)
        if awaited_deadline(record) then
          deadlines[#deadlines + 1] = id
        end
      end
    end
  end
  bulk('ZREM', call.keys[key], ids)
  bulk('ZREM', call.keys[DEADLINES], deadlines)
  bulk('HDEL', call.keys[IDEM], idem)
  bulk('HDEL', call.keys[EXTRA], extra)
  bulk('HDEL', call.keys[BODY], gone)
  bulk('HDEL', call.keys[STATE], gone)
  call.touched = true
end

-- Ends a task that nobody holds, because its deadline has passed.
local function end_late(call, id, record)
  lift(call, id, record)
  die(call, record, OVERDUE)
  settle(call, id, record)
  call.ended[#call.ended + 1] = id
end

-- Ends at most `most` tasks whose deadline passed while nobody held them.
local function end_overdue(call, most)
  if call.deadline < 0 or call.deadline > call.now then
    return
  end
  local ids = redis.call('ZRANGEBYSCORE', call.keys[DEADLINES], '-inf', call.now, 'LIMIT', 0, most)
  load_records(call, ids)
  for _, id in ipairs(ids) do
    local record = call.records[id]
    if record and awaited_deadline(record) then
      end_late(call, id, record)
    else
      redis.call('ZREM', call.keys[DEADLINES], id)
    end
  end
  call.deadline = first_score(call, DEADLINES)
end

-- Removes at most `most` of the tasks past their retention in each index, and of those that are too many. Answers when the
-- next one is past it, or -1.
local function forget_old(call, most)
  local next_end = -1
  for _, key in ipairs({ ENDED, DEAD }) do
    local first = first_score(call, key)
    if first >= 0 and first <= call.now then
      forget(call, key, redis.call('ZRANGEBYSCORE', call.keys[key], '-inf', call.now, 'LIMIT', 0, most))
      first = first_score(call, key)
    end
    local counts = call.counts
    local kept = counts[COMPLETED] + counts[FAILED] + counts[CANCELLED]
    local crowded = kept - math.min(KEPT_MAX, call.policy[P_KEPT_MAX])
    if key == ENDED and crowded > 0 then
      local ids, old = redis.call('ZRANGE', call.keys[key], 0, math.min(crowded, most) - 1), {}
      for at, id in ipairs(ids) do
        local record = at > kept - KEPT_MAX and load_record(call, id)
        if record and record[S_UNTIL] + REMEMBERED_MS > call.now then
          break
        end
        old[#old + 1] = id
      end
      forget(call, key, old)
      -- How the others ended is remembered for a while, as far as the store bears it: they go then.
      if #old < #ids then
        first = call.now + REMEMBERED_MS
      else
        first = #ids < crowded and call.now or first_score(call, key)
      end
    end
    next_end = earlier(next_end, first)
  end
  return next_end
end

-- Writes what changed, tells waiting claims, and answers {now, ready, next due, results, next end of a retention, ended,
-- corrupt, when it was resumed or -1}. A call takes away as many old tasks as it ended and a slice more, so that they do not
-- pile up under batches. META is written only when something changed, or when the wall is behind: time would stand still otherwise.
local function finish(call, results, most)
  end_overdue(call, SWEEP_SLICE)
  local next_end = earlier(forget_old(call, most or SWEEP_SLICE + call.finals), call.deadline)
  local fields = {}
  for _, id in ipairs(call.order) do
    if call.changed[id] then
      fields[#fields + 1] = id
      fields[#fields + 1] = cmsgpack.pack(call.records[id])
    end
  end
  bulk('HSET', call.keys[STATE], fields)
  local due = earlier(first_score(call, DELAYED), first_score(call, LEASES))
  local token_at, ready = next_token(call)
  due = earlier(due, token_at or -1)
  local counts = call.counts
  if call.touched then
    redis.call('HSET', call.keys[META], 'now', call.now, 'wall', call.wall, 'of', call.now, 'seq', call.seq, 'picks', call.picks,
      'due', due, 'claimed', call.claimed, 'c0', counts[0], 'c1', counts[1], 'c2', counts[2], 'c3', counts[3], 'c4', counts[4], 'c5', counts[5], 'c6', counts[6])
  end
  if call.deadline ~= call.had_deadline then
    redis.call('HSET', call.keys[META], 'deadline', call.deadline)
  end
  if call.paid ~= call.had_paid then
    redis.call('HSET', call.keys[META], 'paid', call.paid)
  end
  if call.was_available <= 0 and ready > 0 then
    publish(call.keys[CHANNEL], '')
  end
  -- Parked claims of other servers have a timer for what was due first before this call.
  if due >= 0 and (call.due < 0 or due < call.due) then
    publish(call.keys[CHANNEL], string.format('%.0f', math.max(0, due - call.now)))
  end
  local next_due = due >= 0 and math.max(0, due - call.now) or -1
  return { call.now, ready, next_due, results, next_end, call.ended, call.corrupt, call.resumed }
end

-- Takes tasks away that are past their retention, for a queue that nobody calls. Answers the store's time and when the next
-- one is past it, or -1.
local function sweep(keys)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local answer = finish(call, {}, SLICE)
  return { answer[1], answer[5] }
end

redis.register_function { function_name = 'PREFIX_sweep', callback = sweep, flags = { 'allow-oom' } }
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

-- A task as the server reads it.
local function view(id, record, body, extra)
  return { id, body, record[S_STATE], record[S_BAND], record[S_FAILED], record[S_EXPIRIES], record[S_MAX],
    record[S_CREATED], record[S_READY_AT], record[S_UNTIL], record[S_STARTED], record[S_TOKEN], record[S_WORKER],
    record[S_ENDED], record[S_CANCEL], record[S_REASON], record[S_KEY], extra[2] or false, extra[3] or false,
    read_attempts(extra[1]), record[S_DEADLINE] or -1, record[S_BEAT] or -1 }
end

-- The task without what can be large: a thousand of them fit one answer.
local function outline(id, record)
  return view(id, record, '', {})
end

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
  for state = 0, 6 do
    answer[state + 3] = call.counts[state]
  end
  answer[10] = call.paused and read_pause(call.paused)
  answer[11] = call.claimed
  answer[12] = call.policy ~= DEFAULT_POLICY and call.policy
  answer[13] = next_token(call) or -1
  return answer
end

redis.register_function { function_name = 'PREFIX_get', callback = get, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_outcome', callback = outcome, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_counts', callback = counts, flags = { 'no-writes' } }
do
-- Whether one id stands before another among members with the same score: by bytes, as Redis has them.
local function is_before(a, b)
  for at = 1, #a do
    local left, right = string.byte(a, at), string.byte(b, at) or -1
    if left ~= right then
      return left < right
    end
  end
  return #a < #b
end

-- How many members of an index stand before a place, or at it too.
local function count_before(key, size, rank, id, too)
  local low, high = 0, size
  while low < high do
    local middle = math.floor((low + high) / 2)
    local found = redis.call('ZRANGE', key, middle, middle, 'WITHSCORES')
    local score = tonumber(found[2])
    if score < rank or (score == rank and (is_before(found[1], id) or (too and found[1] == id))) then
      low = middle + 1
    else
      high = middle
    end
  end
  return low
end

local OUTLINE, ATTEMPTS = 0, 1
-- Records that are read together where few tasks are asked for: those of other states lie between them.
local STEP = 100

-- The task as a list tells it, and the bytes that it brings.
local function listed(call, id, record, parts)
  if parts == OUTLINE then
    return outline(id, record), 0
  elseif parts == ATTEMPTS then
    local attempts = record[S_EXTRA] == 1 and redis.call('HGET', call.keys[EXTRA], id .. 'a') or ''
    return view(id, record, '', { attempts }), #attempts
  end
  local body = redis.call('HGET', call.keys[BODY], id) or 'null'
  local extra, bytes = extra_of(call, id, record)
  return view(id, record, body, extra), #body + bytes
end

local INDEX_OF_STATE = { [DELAYED_STATE] = DELAYED, [READY_STATE] = READY, [LEASED] = LEASES, [DEAD_STATE] = DEAD }

-- ARGV: state, most tasks, parts, most bytes, then rank and id of the place behind which the page begins, if it is not the first. Answers the
-- tasks, and rank and id of the place behind which the next page begins, -1 when there is none.
local function tasks(keys, argv)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local state, most, parts = tonumber(argv[1]), tonumber(argv[2]), tonumber(argv[3])
  local key, last_first = keys[INDEX_OF_STATE[state] or ENDED], state > LEASED
  local size = redis.call('ZCARD', key)
  local left = size
  if argv[5] then
    local before = count_before(key, size, tonumber(argv[5]), argv[6], not last_first)
    left = last_first and before or size - before
  end
  local bytes_max = math.min(CLAIM_MAX_BYTES, tonumber(argv[4]))
  local answer, bytes, looked_at, rank, place = {}, 0, 0, -1, ''
  while left > 0 do
    if #answer == most or looked_at >= LIST_LOOKED_AT_MAX then
      return { answer, rank, place }
    end
    local count = math.min(left, math.max(STEP, most - #answer), LIST_LOOKED_AT_MAX - looked_at)
    local first = last_first and left - count or size - left
    local found = redis.call('ZRANGE', key, first, first + count - 1, 'WITHSCORES')
    local ids = {}
    for at = 1, #found, 2 do
      ids[#ids + 1] = found[at]
    end
    load_records(call, ids)
    for step = 1, #ids do
      local at = last_first and #ids + 1 - step or step
      local id, record = ids[at], call.records[ids[at]]
      if #answer == most then
        return { answer, rank, place }
      end
      if record and record[S_STATE] == state and not is_gone(call, record) then
        local task, size_of_task = listed(call, id, record, parts)
        bytes = bytes + size_of_task
        if bytes > bytes_max and #answer > 0 then
          return { answer, rank, place }
        end
        answer[#answer + 1] = task
      end
      rank, place = tonumber(found[2 * at]), id
    end
    looked_at, left = looked_at + #ids, left - #ids
  end
  return { answer, -1, '' }
end

-- How many ready tasks stand before one, at most POSITION_MAX; -1 when it is not ready.
local function position(keys, argv)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local record = load_record(call, argv[1])
  if not record or record[S_STATE] ~= READY_STATE then
    return -1
  end
  local _, score = index_of(record)
  return math.min(POSITION_MAX, count_before(keys[READY], redis.call('ZCARD', keys[READY]), score, argv[1], false))
end

redis.register_function { function_name = 'PREFIX_position', callback = position, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_tasks', callback = tasks, flags = { 'no-writes' } }
end
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
-- Ends a lease without success: `next` is 'same', 'at' (with a time) or 'dead' (with a reason).
local function end_lease(call, id, record, how, next, value)
  lift(call, id, record)
  record[S_ENDED] = how
  if record[S_CANCEL] == 1 then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  elseif next ~= 'dead' and is_overdue(call, record) then
    die(call, record, OVERDUE)
  elseif next == 'same' then
    record[S_STATE], record[S_READY_AT] = READY_STATE, call.now
  elseif next == 'at' then
    record[S_STATE] = value > call.now and DELAYED_STATE or READY_STATE
    record[S_SEQ], record[S_READY_AT], record[S_UNTIL] = next_seq(call), value, value
  else
    die(call, record, value)
  end
  settle(call, id, record)
  -- What a fail led to is its result.
  if how ~= BY_FAIL and is_final(record) then
    call.ended[#call.ended + 1] = id
  end
end

-- The record if the token holds the lease, else nil and what to answer: a repeat of what ended it succeeds, as long as the
-- end is remembered. A task past its retention is there for its last holder alone.
local function held(call, id, token, how)
  local record = load_record(call, id)
  if not record or is_forgotten(call, record) then
    return nil, 'M'
  end
  if record[S_TOKEN] ~= token then
    return nil, is_gone(call, record) and 'M' or 'L'
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

-- What happened to a task: a failed attempt by its number, with the worker, its error and when it was claimed; or, by the number
-- 0, something else. Beyond so many the oldest goes.
local EXPIRED, REDRIVEN = 'E', 'R'
local function add_history(call, id, record, entry)
  local history = read_attempts(redis.call('HGET', call.keys[EXTRA], id .. 'a'))
  if #history >= HISTORY_MAX then
    table.remove(history, 1)
  end
  history[#history + 1] = entry
  put_extra(call, id, record, 'a', cmsgpack.pack(history))
end

local function complete(call, id, token, has_result, result, used)
  local record, refused = held(call, id, token, BY_COMPLETE)
  if not record then
    return refused == 'repeat' and { 'D' } or refused
  end
  if has_result == '1' then
    put_extra(call, id, record, 'r', result)
  end
  if used >= 0 and call.policy[P_INTERVAL_US] > 0 then
    call.paid = math.max(0, call.paid + (used - (record[S_COST] or 1)) * call.policy[P_INTERVAL_US])
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
  local delay = delay_ms >= 0 and delay_ms or backoff(record[S_RETRY], number, dice)
  add_history(call, id, record, { number, call.now, record[S_WORKER], err, record[S_STARTED] })
  record[S_FAILED] = number
  if retryable ~= '1' then
    end_lease(call, id, record, BY_FAIL, 'dead', NON_RETRYABLE)
  elseif number >= record[S_MAX] then
    end_lease(call, id, record, BY_FAIL, 'dead', EXHAUSTED)
  else
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
  local record, refused = held(call, id, token, BY_HEARTBEAT)
  if not record then
    return refused
  end
  if has_progress == '1' then
    put_extra(call, id, record, 'p', progress)
  end
  lift(call, id, record)
  record[S_UNTIL] = call.now + (extend_ms >= 0 and extend_ms or record[S_LEASE_MS])
  set_rare(record, S_BEAT, call.now)
  settle(call, id, record)
  return { 'H', record[S_UNTIL], record[S_CANCEL] }
end

local function cancel(call, id)
  local record = load_record(call, id)
  if not record or is_gone(call, record) then
    return 'M'
  end
  if is_final(record) then
    return 'A'
  end
  lift(call, id, record)
  record[S_CANCEL] = 1
  if record[S_STATE] ~= LEASED then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  end
  settle(call, id, record)
  return { 'X', outline(id, record) }
end

-- Takes a task away whose state is among `states`, a bit for each. What its last holder may still ask stays for a while.
local function purge(call, id, states)
  local record = load_record(call, id)
  if not record or is_gone(call, record) then
    return 'M'
  end
  local state = record[S_STATE]
  if state == LEASED or bit.band(states, bit.lshift(1, state)) == 0 then
    return { 'G', 0 }
  end
  if is_final(record) and call.now < record[S_UNTIL] + REMEMBERED_MS then
    lift(call, id, record)
    record[S_KEPT_MS], record[S_DEAD_MS] = 0, 0
    settle(call, id, record)
  else
    if not is_final(record) then
      call.ended[#call.ended + 1] = id
    end
    forget(call, (index_of(record)), { id })
  end
  return { 'G', 1 }
end

-- Makes a dead letter a task again; the errors of its attempts stay.
local function redrive(call, id, delay_ms)
  local record = load_record(call, id)
  if not record or is_gone(call, record) then
    return 'M'
  end
  if record[S_STATE] ~= DEAD_STATE then
    return 'N'
  end
  add_history(call, id, record, { 0, call.now, '', REDRIVEN, -1 })
  lift(call, id, record)
  local at, deadline_ms = call.now + delay_ms, record[S_DEADLINE_MS] or -1
  record[S_STATE] = delay_ms > 0 and DELAYED_STATE or READY_STATE
  record[S_SEQ], record[S_READY_AT], record[S_UNTIL] = next_seq(call), at, at
  record[S_FAILED], record[S_EXPIRIES], record[S_CANCEL], record[S_REASON] = 0, 0, 0, -1
  record[S_TOKEN], record[S_LEASE_MS], record[S_STARTED], record[S_WORKER], record[S_ENDED] = '', 0, -1, '', NOT_YET
  if deadline_ms >= 0 then
    record[S_DEADLINE] = at + deadline_ms
  end
  settle(call, id, record)
  return { 'V', record[S_STATE] }
end
-- Delays that are due, at most a slice of them and what shares the last one's millisecond, in the order in which they fell
-- due and, within a millisecond, in that of their enqueues.
local function due_delays(call)
  local found = redis.call('ZRANGEBYSCORE', call.keys[DELAYED], '-inf', call.now, 'WITHSCORES', 'LIMIT', 0, SWEEP_SLICE)
  local ids, seen = {}, {}
  for at = 1, #found, 2 do
    ids[#ids + 1] = found[at]
    seen[found[at]] = true
  end
  if #ids == SWEEP_SLICE then
    local last = tonumber(found[#found])
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', call.keys[DELAYED], last, last, 'LIMIT', 0, TIES_MAX)) do
      if not seen[id] then
        ids[#ids + 1] = id
      end
    end
  end
  load_records(call, ids)
  local readable = {}
  for _, id in ipairs(ids) do
    local record = call.records[id]
    if record and record[S_STATE] == DELAYED_STATE then
      readable[#readable + 1] = id
    else
      bury(call, id, DELAYED, DELAYED_STATE)
    end
  end
  table.sort(readable, function(a, b)
    local left, right = call.records[a], call.records[b]
    if left[S_UNTIL] ~= right[S_UNTIL] then
      return left[S_UNTIL] < right[S_UNTIL]
    end
    return left[S_SEQ] < right[S_SEQ]
  end)
  return readable
end

-- Moves due delays to ready, and a slice of expired leases back.
local function move_due(call)
  local due, places = due_delays(call), {}
  for _, id in ipairs(due) do
    local record = call.records[id]
    record[S_STATE], record[S_SEQ] = READY_STATE, next_seq(call)
    local _, score = index_of(record)
    places[#places + 1], places[#places + 2] = score, id
    save(call, id)
  end
  bulk('ZREM', call.keys[DELAYED], due)
  bulk('ZADD', call.keys[READY], places)
  call.counts[DELAYED_STATE] = call.counts[DELAYED_STATE] - #due
  call.counts[READY_STATE] = call.counts[READY_STATE] + #due
  local expired = redis.call('ZRANGEBYSCORE', call.keys[LEASES], '-inf', call.now, 'LIMIT', 0, SWEEP_SLICE)
  load_records(call, expired)
  for _, id in ipairs(expired) do
    local record = call.records[id]
    if not record or record[S_STATE] ~= LEASED then
      bury(call, id, LEASES, LEASED)
    else
      record[S_EXPIRIES] = record[S_EXPIRIES] + 1
      add_history(call, id, record, { 0, call.now, record[S_WORKER], EXPIRED, record[S_STARTED] })
      local killer = record[S_EXPIRIES] >= call.policy[P_EXPIRIES_MAX]
      end_lease(call, id, record, BY_TIME, killer and 'dead' or 'same', QUARANTINED)
    end
  end
end

-- The line of ready tasks for one claim of at most `max`: a function that answers the next id and its body, nil at its end.
-- A task that was answered and not claimed ends the claim.
local function line_of(call, max)
  local bodies_at_a_time = math.max(1, math.min(BODIES_AT_A_TIME, math.floor(call.answer_max / PAYLOAD_MAX_BYTES)))
  local ids, bodies, at, read_to = redis.call('ZRANGE', call.keys[READY], 0, max - 1), {}, 0, 0
  load_records(call, ids)
  local taken = {}
  local function next_in_line()
    repeat
      at = at + 1
    until not ids[at] or not taken[ids[at]]
    if ids[at] and at > read_to then
      local last = math.min(at + bodies_at_a_time - 1, #ids)
      local found = redis.call('HMGET', call.keys[BODY], unpack(ids, at, last))
      for offset = 1, last - at + 1 do
        bodies[ids[at + offset - 1]] = found[offset]
      end
      read_to = last
    end
    return ids[at], ids[at] and bodies[ids[at]]
  end
  return function()
    if #ids > 0 and is_out_of_turn(call) then
      local aged = aged_head(call)
      if aged then
        taken[aged] = true
        return aged, bodies[aged] or redis.call('HGET', call.keys[BODY], aged)
      end
    end
    return next_in_line()
  end
end

local function claim(call, max, lease_ms, token, worker)
  local tasks, bytes = {}, 0
  if call.paused or call.bytes >= call.answer_max then
    return { 'C', tasks }
  end
  local line = line_of(call, max)
  while #tasks < max do
    local id, body = line()
    if not id then
      break
    end
    local record = load_record(call, id)
    if not body or not record or record[S_STATE] ~= READY_STATE then
      bury(call, id, READY, READY_STATE)
    elseif is_overdue(call, record) then
      end_late(call, id, record)
    elseif not may_start(call, record) then
      break
    else
      local extra, extra_bytes = extra_of(call, id, record)
      local size = #body + extra_bytes
      bytes = bytes + size
      if #tasks > 0 and bytes > CLAIM_MAX_BYTES then
        break
      end
      if call.bytes > 0 and call.bytes + size > call.answer_max then
        -- The head stays: the claims behind this one would read it, and the bodies behind it, for nothing.
        call.bytes = call.answer_max
        break
      end
      call.bytes = call.bytes + size
      call.picks = (call.picks + 1) % AGING_PICKS
      lift(call, id, record)
      record[S_STATE], record[S_UNTIL], record[S_TOKEN], record[S_LEASE_MS] = LEASED, call.now + lease_ms, token, lease_ms
      record[S_STARTED], record[S_WORKER], record[S_ENDED] = call.now, worker, NOT_YET
      if record[S_BEAT] then
        record[S_BEAT] = -1
      end
      call.claimed = call.now
      pay(call, record)
      settle(call, id, record)
      tasks[#tasks + 1] = view(id, record, body, extra)
    end
  end
  return { 'C', tasks }
end
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

-- A policy: what `layout.lua` names, in its order, numbers but for the retry.
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
  redis.call('HSET', call.keys[META], 'policy', cmsgpack.pack(policy))
  return { 'Y' }
end

-- ARGV: path, most bytes of the answer, then operations, each a letter and its arguments.
local function work(keys, argv)
  local call, refused = begin(keys, argv[1])
  if not call then
    return refused
  end
  call.answer_max = math.min(ANSWER_MAX_BYTES, tonumber(argv[2]))
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
      result = govern(call, argv, at)
      at = at + 1 + POLICY_ARGS
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
do
-- Which queue has which number. A queue's path is `tenant/name`. Its tasks lie in another slot than this registry, so a
-- queue is opened in steps, each safe when it is the last one: a number is proposed (`open`), the shard's META takes the
-- path (`settle`), the registry takes the number (`register`), and only then anybody learns it. A shard without a path takes
-- no task, and a path is written anew under a fresh number only: so no task is accepted into a shard that the registry
-- does not name, whatever is lost in between.
local NUMBERS, PATHS, NAMES, OPENED = 1, 2, 3, 4

-- Older servers add to NUMBERS and not to NAMES, which lists the paths in their order.
local function list_names(keys)
  if redis.call('ZCARD', keys[NAMES]) == redis.call('HLEN', keys[NUMBERS]) then
    return
  end
  local places = {}
  for _, path in ipairs(redis.call('HKEYS', keys[NUMBERS])) do
    places[#places + 1], places[#places + 2] = 0, path
  end
  bulk('ZADD', keys[NAMES], places)
end

-- What a tenant's paths begin with, as bounds: '0' follows '/'.
local function paths_of(tenant)
  return '[' .. tenant .. '/', '(' .. tenant .. '0'
end

local function tenant_of(path)
  return string.match(path, '^[^/]*')
end

-- Why there is no room for one queue more: the tenant's, or the store's.
local function crowded(keys, path)
  list_names(keys)
  if redis.call('ZLEXCOUNT', keys[NAMES], paths_of(tenant_of(path))) >= QUEUES_PER_TENANT_MAX then
    return { 'L', QUEUES_PER_TENANT_MAX }
  end
  if redis.call('HLEN', keys[NUMBERS]) >= QUEUES_MAX then
    return { 'L', QUEUES_MAX }
  end
  return nil
end

-- ARGV: path, a number that it must not have (0 for none). Answers {'K', its number}, {'P', one that is free} or {'L', the
-- limit that is reached}. Numbers are scattered by the clock and not counted up: where the registry lost its last queues, or
-- all, a server that still knows one of them must not share its number with a new one.
local function open(keys, argv)
  local known = redis.call('HGET', keys[NUMBERS], argv[1])
  if known and known ~= argv[2] then
    return { 'K', tonumber(known) }
  end
  local full = not known and crowded(keys, argv[1])
  if full then
    return full
  end
  local time = redis.call('TIME')
  local queues = redis.call('HLEN', keys[NUMBERS])
  local number = (tonumber(time[1]) * 1000003 + tonumber(time[2]) * 7919 + queues) % NUMBERS_MAX + 1
  while redis.call('HEXISTS', keys[PATHS], number) == 1 or string.format('%d', number) == argv[2] do
    number = number % NUMBERS_MAX + 1
  end
  return { 'P', number }
end

-- KEYS: the META of a shard. ARGV: path; 'new' for a number that was proposed, 'known' for one that the registry names.
-- Answers 'O' when it is the path's now, else 'X': the number is not to be used for it. A shard that an older server has
-- written to has no path, and takes it.
local function settle(keys, argv)
  local meta = redis.call('HMGET', keys[1], 'path', 'now')
  if meta[1] then
    return meta[1] == argv[1] and argv[2] == 'known' and 'O' or 'X'
  end
  local written_before = meta[2] ~= false
  if written_before ~= (argv[2] == 'known') then
    return 'X'
  end
  redis.call('HSET', keys[1], 'path', argv[1], 'schema', SCHEMA_OF_NEW)
  return 'O'
end

-- ARGV: path, number, the number that it replaces (0 for none). Answers as `open`: 'K' with this number, or with another
-- that somebody else was faster to register; 'P' when the number is taken meanwhile.
local function register(keys, argv)
  local path, number = argv[1], argv[2]
  local known = redis.call('HGET', keys[NUMBERS], path)
  if known and known ~= argv[3] then
    return { 'K', tonumber(known) }
  end
  if redis.call('HEXISTS', keys[PATHS], number) == 1 then
    return { 'P', 0 }
  end
  local full = not known and crowded(keys, path)
  if full then
    return full
  end
  redis.call('HSET', keys[NUMBERS], path, number)
  redis.call('HSET', keys[PATHS], number, path)
  redis.call('ZADD', keys[NAMES], 0, path)
  if known then
    redis.call('HDEL', keys[PATHS], known)
  end
  publish(keys[OPENED], number .. ' ' .. path)
  return { 'K', tonumber(number) }
end

-- ARGV: tenant, the name that the page begins behind ('' for none), most queues. Answers paths and numbers in turn.
local function list(keys, argv)
  list_names(keys)
  local first, last = paths_of(argv[1])
  if argv[2] ~= '' then
    first = '(' .. argv[1] .. '/' .. argv[2]
  end
  local paths = redis.call('ZRANGEBYLEX', keys[NAMES], first, last, 'LIMIT', 0, tonumber(argv[3]))
  local answer = {}
  for at = 1, #paths, SLICE do
    local last_of_slice = math.min(at + SLICE - 1, #paths)
    local numbers = redis.call('HMGET', keys[NUMBERS], unpack(paths, at, last_of_slice))
    for offset = 1, last_of_slice - at + 1 do
      if numbers[offset] then
        answer[#answer + 1], answer[#answer + 2] = paths[at + offset - 1], tonumber(numbers[offset])
      end
    end
  end
  return answer
end

redis.register_function { function_name = 'PREFIX_open', callback = open, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_register', callback = register, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_list', callback = list, flags = { 'allow-oom' } }
end
do
-- KEYS: shards by the end of a retention, and shards that a server is sweeping, by when it is given up. ARGV: most shards, when
-- the caller's hold of the last ones ends, how many of those it has swept, those shards, then pairs of ms and a shard: it has a
-- retention that ends in so long. Answers in how many ms there is something to take next, or -1: the next retention ends, or a
-- shard that another server has taken is given up; and shards whose time has come, which are the caller's to sweep, and until
-- when. One whose sweeper has died comes back.
local function take(keys, argv)
  local now = store_time()
  local most, held, swept = tonumber(argv[1]), argv[2], tonumber(argv[3])
  local done, ends, given_up, wait = {}, {}, {}, -1
  if swept > 0 then
    -- Of a caller that was slow others may hold a shard by now: theirs ends at another time.
    local own = {}
    for _, shard in ipairs(redis.call('ZRANGEBYSCORE', keys[2], held, held)) do
      own[shard] = true
    end
    for at = 4, 3 + swept do
      if own[argv[at]] then
        done[#done + 1] = argv[at]
      end
    end
  end
  for at = 4 + swept, #argv, 2 do
    ends[#ends + 1], ends[#ends + 2] = now + tonumber(argv[at]), argv[at + 1]
  end
  bulk('ZREM', keys[2], done)
  local taken = redis.call('ZRANGEBYSCORE', keys[2], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, most)
  for at = 1, #taken, 2 do
    if tonumber(taken[at + 1]) > now then
      wait = tonumber(taken[at + 1]) - now
      break
    end
    given_up[#given_up + 1] = taken[at]
    ends[#ends + 1], ends[#ends + 2] = now, taken[at]
  end
  bulk('ZREM', keys[2], given_up)
  for at = 1, #ends, 2 do
    redis.call('ZADD', keys[1], 'LT', ends[at], ends[at + 1])
  end
  local first = redis.call('ZRANGEBYSCORE', keys[1], '-inf', '+inf', 'WITHSCORES', 'LIMIT', 0, most)
  local shards, places = {}, {}
  for at = 1, #first, 2 do
    local left = tonumber(first[at + 1]) - now
    if left > 0 then
      wait = earlier(wait, left)
      break
    end
    shards[#shards + 1] = first[at]
    places[#places + 1], places[#places + 2] = now + TAKEN_MS, first[at]
  end
  bulk('ZREM', keys[1], shards)
  bulk('ZADD', keys[2], places)
  return { wait, shards, now + TAKEN_MS }
end

-- ARGV: triples of a right as a user reads it, a command, and its first argument. Answers the rights that the caller lacks.
-- It is registered as a function that writes, and writes nothing: so Redis itself refuses it where tasks could not be
-- written, on a replica, or when it cannot save.
local function ready(_, argv)
  local missing = {}
  for at = 1, #argv, 3 do
    local words = {}
    for word in string.gmatch(argv[at + 1], '%S+') do
      words[#words + 1] = word
    end
    words[#words + 1] = argv[at + 2]
    if not redis.acl_check_cmd(unpack(words)) then
      missing[#missing + 1] = argv[at]
    end
  end
  return missing
end

redis.register_function { function_name = 'PREFIX_take', callback = take, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_ready', callback = ready, flags = { 'allow-oom' } }
end
