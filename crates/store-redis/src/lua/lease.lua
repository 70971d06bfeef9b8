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
  local delay = delay_ms >= 0 and delay_ms or backoff(record[S_RETRY], number, dice)
  local attempts = read_attempts(redis.call('HGET', call.keys[EXTRA], id .. 'a'))
  attempts[#attempts + 1] = { number, call.now, record[S_WORKER], err }
  put_extra(call, id, record, 'a', cmsgpack.pack(attempts))
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
