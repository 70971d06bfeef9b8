-- Fairness between keys, as `fair.rs` of the engine has it and explains it: tags by start-time fair queueing. A line is 'r' and its
-- band for ready tasks, or the letter of a gate, its band and its key. In GATES lie, as lists, the virtual time (-1 where
-- unknown) and number of accounts of a line under 'v' and its name, and where an account's next task starts and how many it has
-- under 'f', the line, a zero byte and the key. `call.fair` is the number of the first task with a fairness key, nil before.
do
local TAG_MAX, STEP = BAND_WIDTH - 1, 256

-- The values of GATES that a call has read and changed; false where there is none.
function gates.load(call, fields)
  local wanted = {}
  for _, field in ipairs(fields) do
    if call.gates[field] == nil then
      call.gates[field] = false
      wanted[#wanted + 1] = field
    end
  end
  for first = 1, #wanted, SLICE do
    local last = math.min(first + SLICE - 1, #wanted)
    local found = redis.call('HMGET', call.keys[GATES], unpack(wanted, first, last))
    for at = first, last do
      local value = found[at - first + 1]
      call.gates[wanted[at]] = value and cmsgpack.unpack(value) or false
    end
  end
end

function gates.get(call, field)
  if call.gates[field] == nil then
    gates.load(call, { field })
  end
  return call.gates[field]
end

function gates.put(call, field, value)
  call.gates[field] = value
  call.touched = true
  if not call.gates_changed[field] then
    call.gates_changed[field] = true
    call.gates_order[#call.gates_order + 1] = field
  end
end

-- Writes what changed: by finish.
function gates.write(call)
  local set, gone = {}, {}
  for _, field in ipairs(call.gates_order) do
    local value = call.gates[field]
    if value then
      set[#set + 1], set[#set + 2] = field, cmsgpack.pack(value)
    else
      gone[#gone + 1] = field
    end
  end
  bulk('HSET', call.keys[GATES], set)
  bulk('HDEL', call.keys[GATES], gone)
end

-- The key by which a task is treated fairly, '' without one.
function fair.key_of(record)
  local key = record[S_FAIRNESS]
  return key and key ~= -1 and key or ''
end

function fair.step(call, record)
  local key = fair.key_of(record)
  local weight = key ~= '' and gates.by_key(call).weights[key] or 1
  return math.max(1, math.floor(STEP / weight))
end

-- Whether the task is older than the accounts.
function fair.is_outside(call, record, tag)
  return not call.fair or fair.key_of(record) == '' and tag <= call.fair
end

function fair.account(line, record)
  return 'f' .. line .. '\0' .. fair.key_of(record)
end

-- Changes how many tasks an account has; `next_start` is where its next one starts, where it has one at all.
function fair.put(call, line, field, next_start, tasks)
  local flows = gates.get(call, 'v' .. line) or { -1, 0 }
  local before = gates.get(call, field)
  gates.put(call, field, tasks > 0 and { next_start, tasks } or false)
  if (before and 1 or 0) ~= (tasks > 0 and 1 or 0) then
    flows = { flows[1], flows[2] + (before and -1 or 1) }
    local lives = flows[2] > 0 or string.byte(line) == 114 -- 'r'
    gates.put(call, 'v' .. line, lives and flows)
  end
end

-- The tag of a task that joins a line; `head` answers the line's first tag.
function fair.joined(call, line, record, head)
  if not call.fair and fair.key_of(record) ~= '' then
    call.fair = record[S_SEQ]
  end
  if not call.fair then
    return record[S_SEQ]
  end
  local field, flows = fair.account(line, record), gates.get(call, 'v' .. line)
  local now = flows and flows[1] >= 0 and flows[1] or head() or call.fair
  local newcomer = now + STEP - 1
  if fair.key_of(record) == '' then
    newcomer = math.max(newcomer, call.fair + 1)
  end
  local account = gates.get(call, field) or { newcomer, 0 }
  local tag = math.min(TAG_MAX, math.max(account[1], now))
  fair.put(call, line, field, tag + fair.step(call, record), account[2] + 1)
  return tag
end

-- A task has come back to its line, with the tag that it had there.
function fair.returned(call, line, record)
  local tag = tag_of(record)
  if fair.is_outside(call, record, tag) then
    return
  end
  local field, flows = fair.account(line, record), gates.get(call, 'v' .. line)
  local account = gates.get(call, field)
  local behind = math.max(tag + fair.step(call, record), flows and flows[1] >= 0 and flows[1] + STEP - 1 or 0)
  fair.put(call, line, field, account and account[1] or behind, account and account[2] + 1 or 1)
end

-- A task is in the line no more.
function fair.left(call, line, record)
  if fair.is_outside(call, record, tag_of(record)) then
    return
  end
  local field = fair.account(line, record)
  local account = gates.get(call, field)
  if account then
    fair.put(call, line, field, account[1], account[2] - 1)
  end
end

-- The task with this tag is the next that left.
function fair.served(call, line, tag)
  if not call.fair then
    return
  end
  local flows = gates.get(call, 'v' .. line)
  if flows or string.byte(line) == 114 then -- 'r'
    flows = flows or { -1, 0 }
    gates.put(call, 'v' .. line, { math.max(flows[1], tag), flows[2] })
  end
end

-- Nothing is in any line, and nothing can return to one.
function fair.reset(call)
  call.fair = nil
  for band = 0, 9 do
    if gates.get(call, 'vr' .. band) then
      gates.put(call, 'vr' .. band, false)
    end
  end
end
end
