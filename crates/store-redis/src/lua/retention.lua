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
  local was, holds = lift(call, id, record)
  die(call, record, OVERDUE)
  settle(call, id, record, was, holds)
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
  local of_keys = call.schema >= SCHEMA_OF_KEYS and gates.finish(call) or {}
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
  due = earlier(earlier(due, token_at or -1), call.unlooked and call.now or call.gate_due)
  next_end = earlier(next_end, call.unlooked and call.now or call.idle_due)
  local counts = call.counts
  if call.touched then
    redis.call('HSET', call.keys[META], 'now', call.now, 'wall', call.wall, 'of', call.now, 'seq', call.seq, 'picks', call.picks,
      'due', due, 'claimed', call.claimed, 'c0', counts[0], 'c1', counts[1], 'c2', counts[2], 'c3', counts[3], 'c4', counts[4], 'c5', counts[5], 'c6', counts[6], unpack(of_keys))
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
