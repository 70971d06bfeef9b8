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

local INDEX_OF_STATE = { [DELAYED_STATE] = DELAYED, [READY_STATE] = READY, [LEASED] = LEASES, [DEAD_STATE] = DEAD,
  [BLOCKED_STATE] = BLOCKED }

-- ARGV: state, most tasks, parts, most bytes, then rank and id of the place behind which the page begins, if it is not the first. Answers the
-- tasks, and rank and id of the place behind which the next page begins, -1 when there is none.
local function tasks(keys, argv)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local state, most, parts = tonumber(argv[1]), tonumber(argv[2]), tonumber(argv[3])
  local key, last_first = keys[INDEX_OF_STATE[state] or ENDED], state > LEASED and state ~= BLOCKED_STATE
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

-- Where a task stands: how many ready ones before it, at most POSITION_MAX, or, for a blocked one, how many in its line, and what
-- its gate is like; empty when it is neither.
local function standing(keys, argv)
  local call, refused = begin(keys)
  if not call then
    return refused
  end
  local record = load_record(call, argv[1])
  if record and record[S_STATE] == BLOCKED_STATE then
    return gates.standing(call, argv[1], record)
  elseif not record or record[S_STATE] ~= READY_STATE then
    return {}
  end
  local _, score = index_of(record)
  return { math.min(POSITION_MAX, count_before(keys[READY], redis.call('ZCARD', keys[READY]), score, argv[1], false)) }
end

redis.register_function { function_name = 'PREFIX_standing', callback = standing, flags = { 'no-writes' } }
redis.register_function { function_name = 'PREFIX_tasks', callback = tasks, flags = { 'no-writes' } }
end
