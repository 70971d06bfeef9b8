-- Ends a lease without success: `next` is 'same', 'at' (with a time) or 'dead' (with a reason).
local function end_lease(call, id, record, how, next, value)
  local was, holds = lift(call, id, record)
  local seq = next == 'at' and next_seq(call)
  record[S_ENDED] = how
  if record[S_CANCEL] == 1 then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  elseif next ~= 'dead' and is_overdue(call, record) then
    die(call, record, OVERDUE)
  elseif next == 'same' then
    record[S_STATE], record[S_READY_AT] = READY_STATE, call.now
    gates.come_again(call, record)
  elseif next == 'at' then
    record[S_STATE] = value > call.now and DELAYED_STATE or READY_STATE
    record[S_SEQ], record[S_READY_AT], record[S_UNTIL] = seq, value, value
    forget_place(record)
    gates.go_without(call, record, how == BY_FAIL)
  else
    die(call, record, value)
  end
  settle(call, id, record, was, holds)
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
  if used >= 0 and is_keyed(record) then
    gates.pay(call, record, used)
  end
  if used >= 0 and call.policy[P_INTERVAL_US] > 0 then
    call.paid = math.max(0, call.paid + (used - (record[S_COST] or 1)) * call.policy[P_INTERVAL_US])
  end
  local was, holds = lift(call, id, record)
  record[S_STATE], record[S_UNTIL], record[S_ENDED] = COMPLETED, call.now, BY_COMPLETE
  settle(call, id, record, was, holds)
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
  return { 'F', record[S_STATE], is_queued(record) and record[S_READY_AT] or -1 }
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
  local was, holds = lift(call, id, record)
  record[S_UNTIL] = call.now + (extend_ms >= 0 and extend_ms or record[S_LEASE_MS])
  set_rare(record, S_BEAT, call.now)
  settle(call, id, record, was, holds)
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
  local was, holds = lift(call, id, record)
  record[S_CANCEL] = 1
  if record[S_STATE] ~= LEASED then
    record[S_STATE], record[S_UNTIL] = CANCELLED, call.now
  end
  settle(call, id, record, was, holds)
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
    local was, holds = lift(call, id, record)
    record[S_KEPT_MS], record[S_DEAD_MS] = 0, 0
    settle(call, id, record, was, holds)
  else
    if is_final(record) then
      forget(call, (index_of(record)), { id })
    else
      call.ended[#call.ended + 1] = id
      gates.drop(call, id, record, function()
        forget(call, (index_of(record)), { id })
      end)
    end
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
  local was, holds = lift(call, id, record)
  local at, deadline_ms = call.now + delay_ms, record[S_DEADLINE_MS] or -1
  record[S_STATE] = delay_ms > 0 and DELAYED_STATE or READY_STATE
  record[S_SEQ], record[S_READY_AT], record[S_UNTIL] = next_seq(call), at, at
  forget_place(record)
  record[S_FAILED], record[S_EXPIRIES], record[S_CANCEL], record[S_REASON] = 0, 0, 0, -1
  record[S_TOKEN], record[S_LEASE_MS], record[S_STARTED], record[S_WORKER], record[S_ENDED] = '', 0, -1, '', NOT_YET
  if deadline_ms >= 0 then
    record[S_DEADLINE] = at + deadline_ms
  end
  settle(call, id, record, was, holds)
  return { 'V', record[S_STATE] }
end
