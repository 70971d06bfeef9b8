local move_due, claim
do
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

-- Moves delayed tasks to ready: together where none has a key.
local function move_delays(call, due)
  local keyed = call.fair
  for _, id in ipairs(due) do
    keyed = keyed or is_keyed(call.records[id])
  end
  if keyed then
    for _, id in ipairs(due) do
      local record = call.records[id]
      local was, holds = lift(call, id, record)
      record[S_STATE], record[S_SEQ] = READY_STATE, next_seq(call)
      forget_place(record)
      settle(call, id, record, was, holds)
    end
    return
  end
  local places = {}
  for _, id in ipairs(due) do
    local record = call.records[id]
    record[S_STATE], record[S_SEQ] = READY_STATE, next_seq(call)
    forget_place(record)
    local _, score = index_of(record)
    places[#places + 1], places[#places + 2] = score, id
    save(call, id)
  end
  bulk('ZREM', call.keys[DELAYED], due)
  bulk('ZADD', call.keys[READY], places)
  call.counts[DELAYED_STATE] = call.counts[DELAYED_STATE] - #due
  call.counts[READY_STATE] = call.counts[READY_STATE] + #due
end

-- Moves due delays to ready, and a slice of expired leases back.
function move_due(call)
  move_delays(call, due_delays(call))
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
  if call.schema >= SCHEMA_OF_KEYS then
    gates.open_due(call)
  end
end

-- The line of ready tasks for one claim of at most `max`: a function that answers the next id and its body, nil at its end.
-- A task that was answered and not claimed ends the claim.
local function line_of(call, max)
  local bodies_at_a_time = math.max(1, math.min(BODIES_AT_A_TIME, math.floor(call.answer_max / PAYLOAD_MAX_BYTES)))
  local ids, bodies, at, read_to = redis.call('ZRANGE', call.keys[READY], 0, max - 1), {}, 0, 0
  load_records(call, ids)
  if call.schema >= SCHEMA_OF_KEYS then
    gates.load_of(call, ids)
  end
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

function claim(call, max, lease_ms, token, worker)
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
      local was, holds = lift(call, id, record)
      record[S_STATE], record[S_UNTIL], record[S_TOKEN], record[S_LEASE_MS] = LEASED, call.now + lease_ms, token, lease_ms
      record[S_STARTED], record[S_WORKER], record[S_ENDED] = call.now, worker, NOT_YET
      if record[S_BEAT] then
        record[S_BEAT] = -1
      end
      call.claimed = call.now
      pay(call, record)
      settle(call, id, record, was, holds)
      tasks[#tasks + 1] = view(id, record, body, extra)
    end
  end
  return { 'C', tasks }
end
end
