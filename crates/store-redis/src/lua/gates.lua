-- Letting tasks through the gates of their keys, as `admit.rs` of the engine has it and explains it.
--
-- In GATES lie, as lists: under 'o' and an ordering key the task that holds it ('' where none does) and how many wait for it; under
-- 'l' and a limit key what its tasks hold: slots, cost of those that are ready, when their tokens are paid and the time of one
-- token, in microseconds, when it is looked at next, when its tokens are paid if it has nothing else (-1 where not), and how
-- many wait for a slot and at the rate.
do
local ORDERING, IN_FLIGHT, RATE = 0, 1, 2
local U_HELD, U_UNCLAIMED, U_PAID, U_INTERVAL, U_DUE, U_IDLE, U_WAIT = 1, 2, 3, 4, 5, 6, 7
local HOLDS_KEY, HOLDS_SLOT, AGAIN = 1, 2, 4
-- Limit keys that have nothing stand in RATES behind all times.
local IDLE_FROM = 2251799813685248 -- 2^51

local function has(record, bits)
  return bit.band(record[S_HOLDS] or 0, bits) ~= 0
end

local function hold(record, bits, is_held)
  record[S_HOLDS] = is_held and bit.bor(record[S_HOLDS], bits) or bit.band(record[S_HOLDS], bit.bnot(bits))
end

local function own_key(record, field)
  local key = record[field]
  return key and key ~= -1 and key or nil
end

-- What the policy says of keys: rules, weights and whether a task that failed gives its ordering key up.
function gates.by_key(call)
  if not call.by_key then
    local packed = redis.call('HGET', call.keys[META], 'by_key')
    local read, found = pcall(cmsgpack.unpack, packed or '')
    local by_key = read and type(found) == 'table' and found or { 0, {}, {} }
    call.by_key = { skips = by_key[1] == 1, rules = by_key[2], weights = {}, by_key = by_key, of = {} }
    for at = 1, #by_key[3], 2 do
      call.by_key.weights[by_key[3][at]] = by_key[3][at + 1]
    end
  end
  return call.by_key
end

-- The first rule that matches a key, or false: pattern, slots, interval in microseconds, burst; -1 where there is no such limit.
local R_PATTERN, R_SLOTS, R_INTERVAL, R_BURST = 1, 2, 3, 4
local function rule_of(call, key)
  local known = gates.by_key(call)
  if known.of[key] == nil then
    known.of[key] = false
    for _, rule in ipairs(known.rules) do
      local pattern = rule[R_PATTERN]
      local is_open = string.sub(pattern, -1) == '*'
      if is_open and string.sub(key, 1, #pattern - 1) == string.sub(pattern, 1, -2) or key == pattern then
        known.of[key] = rule
        break
      end
    end
  end
  return known.of[key]
end

local function rate_of(call, key)
  local rule = rule_of(call, key)
  return rule and rule[R_INTERVAL] > 0 and rule or nil
end

local function uses_of(call, key)
  return gates.get(call, 'l' .. key) or { 0, 0, 0, 0, -1, -1, 0, 0 }
end

local function set_use(call, key, field, value)
  local uses = uses_of(call, key)
  uses[field] = value
  gates.put(call, 'l' .. key, uses)
end

local function key_at(gate, record)
  return own_key(record, gate == ORDERING and S_ORDERING or S_LIMIT)
end

local function waiting_at(call, gate, key)
  if gate == ORDERING then
    local ordering = gates.get(call, 'o' .. key)
    return ordering and ordering[2] or 0
  end
  return uses_of(call, key)[U_WAIT + gate - IN_FLIGHT]
end

local function add_waiting(call, gate, key, by)
  if gate == ORDERING then
    local ordering = gates.get(call, 'o' .. key) or { '', 0 }
    local waiting = ordering[2] + by
    gates.put(call, 'o' .. key, (ordering[1] ~= '' or waiting > 0) and { ordering[1], waiting })
  else
    set_use(call, key, U_WAIT + gate - IN_FLIGHT, waiting_at(call, gate, key) + by)
  end
end

local function line_prefix(gate, key)
  return string.char(97 + gate) .. key .. '\0'
end

-- A task's member in the line of its gate.
local function member_of(gate, id, record)
  local band, tag = 0, record[S_SEQ]
  if gate ~= ORDERING and not (gate == RATE and has(record, AGAIN)) then
    band, tag = record[S_BAND] + 1, tag_of(record)
  end
  return line_prefix(gate, key_at(gate, record)) .. string.char(band) .. struct.pack('>I8', tag) .. id
end

-- The name of the line in which a task is treated fairly, or nil.
local function fair_line(record, gate)
  if gate == nil then
    return 'r' .. record[S_BAND]
  elseif gate ~= ORDERING then
    return string.char(97 + gate) .. record[S_BAND] .. key_at(gate, record)
  end
end

local function line_now(record)
  if record[S_STATE] == READY_STATE then
    return fair_line(record, nil)
  elseif record[S_STATE] == BLOCKED_STATE and not has(record, AGAIN) then
    return fair_line(record, record[S_GATE])
  end
end

local function set_unclaimed(call, record, by)
  local key = record[S_STATE] == READY_STATE and own_key(record, S_LIMIT)
  if key then
    set_use(call, key, U_UNCLAIMED, math.max(0, uses_of(call, key)[U_UNCLAIMED] + by * (record[S_COST] or 1)))
  end
end

-- A task leaves its place among those that wait; what it holds stays with it.
function gates.leave(call, id, record)
  local line = (call.fair or is_keyed(record)) and line_now(record)
  if line then
    fair.left(call, line, record)
  end
  if is_keyed(record) then
    set_unclaimed(call, record, -1)
    if record[S_STATE] == BLOCKED_STATE then
      redis.call('ZREM', call.keys[LINES], member_of(record[S_GATE], id, record))
      add_waiting(call, record[S_GATE], key_at(record[S_GATE], record), -1)
    end
  end
end

-- A task has its place among those that wait. Answers its member of a line, where it stands in one.
function gates.enter(call, id, record)
  set_unclaimed(call, record, 1)
  if record[S_STATE] == BLOCKED_STATE then
    add_waiting(call, record[S_GATE], key_at(record[S_GATE], record), 1)
    return member_of(record[S_GATE], id, record)
  end
end

-- When the tokens of a key are paid, at this rate.
local function paid_us(call, uses, rule)
  local interval, owed = rule[R_INTERVAL], math.max(0, uses[U_PAID] - call.now * 1000)
  if uses[U_INTERVAL] == interval then
    return uses[U_PAID]
  elseif uses[U_INTERVAL] <= 0 or owed == 0 then
    return 0
  end
  return call.now * 1000 + math.ceil(owed / uses[U_INTERVAL] * interval)
end

local function opens_for(call, key, rule, cost)
  local uses = uses_of(call, key)
  local paid, asked = paid_us(call, uses, rule), uses[U_UNCLAIMED] + cost
  if asked <= rule[R_BURST] then
    return math.max(0, paid - (rule[R_BURST] - asked) * rule[R_INTERVAL])
  end
  return uses[U_UNCLAIMED] == 0 and paid or nil
end

-- Takes the tokens of a task that starts, or makes what it took another number.
function gates.pay(call, record, used)
  local key = own_key(record, S_LIMIT)
  local rule = key and rate_of(call, key)
  if rule then
    local cost, before = record[S_COST] or 1, paid_us(call, uses_of(call, key), rule)
    local paid = math.max(before, call.now * 1000) + cost * rule[R_INTERVAL]
    if used then
      paid = math.max(0, before + used * rule[R_INTERVAL] - cost * rule[R_INTERVAL])
    end
    set_use(call, key, U_PAID, paid)
    set_use(call, key, U_INTERVAL, rule[R_INTERVAL])
  end
end

local function has_free_slot(call, key)
  local rule = rule_of(call, key)
  return not rule or rule[R_SLOTS] < 0 or uses_of(call, key)[U_HELD] < rule[R_SLOTS]
end

local function holder_of_key(call, key)
  local ordering = gates.get(call, 'o' .. key)
  return ordering and ordering[1] or ''
end

-- Takes what the task meets on its way; answers the gate that holds it back, if one does.
local function meet(call, id, record, passed)
  local ordering, key = own_key(record, S_ORDERING), own_key(record, S_LIMIT)
  if ordering and not has(record, HOLDS_KEY) then
    local waiting = waiting_at(call, ORDERING, ordering)
    if holder_of_key(call, ordering) ~= '' or waiting > 0 and passed ~= ORDERING then
      return ORDERING
    end
    gates.put(call, 'o' .. ordering, { id, waiting })
    hold(record, HOLDS_KEY, true)
  end
  if not key then
    return nil
  end
  if not has(record, HOLDS_SLOT) then
    if passed ~= IN_FLIGHT and (waiting_at(call, IN_FLIGHT, key) > 0 or not has_free_slot(call, key)) then
      return IN_FLIGHT
    end
    hold(record, HOLDS_SLOT, true)
    set_use(call, key, U_HELD, uses_of(call, key)[U_HELD] + 1)
  end
  local rule = passed ~= RATE and rate_of(call, key)
  if rule then
    local opens = opens_for(call, key, rule, record[S_COST] or 1)
    if not opens or opens > call.now * 1000 or (waiting_at(call, RATE, key) > 0 and not has(record, AGAIN)) then
      return RATE
    end
  end
  return nil
end

local function draw_tag(call, record, gate)
  local counts, line = call.counts, fair_line(record, gate)
  if call.fair and counts[READY_STATE] + counts[LEASED] + counts[BLOCKED_STATE] == 0 then
    -- It may be the last of before, and come back to the place that it had: its tag is of the accounts that end here.
    fair.reset(call)
    if record[S_TAG] then
      record[S_TAG] = -1
    end
  end
  if not call.fair and fair.key_of(record) == '' then
    return
  end
  if gate == nil and record[S_TAG] and record[S_TAG] >= 0 then
    return fair.returned(call, line, record)
  end
  local function head()
    write_places(call)
    local band = record[S_BAND]
    if gate == nil then
      local first = redis.call('ZRANGEBYSCORE', call.keys[READY], band * BAND_WIDTH, (band + 1) * BAND_WIDTH - 1,
        'WITHSCORES', 'LIMIT', 0, 1)
      return first[2] and tonumber(first[2]) - band * BAND_WIDTH
    end
    local prefix = line_prefix(gate, key_at(gate, record))
    local from, to = prefix .. string.char(band + 1), prefix .. string.char(band + 2)
    local first = redis.call('ZRANGEBYLEX', call.keys[LINES], '[' .. from, '(' .. to, 'LIMIT', 0, 1)
    return first[1] and struct.unpack('>I8', first[1], #from + 1)
  end
  set_rare(record, S_TAG, fair.joined(call, line, record, head))
  raise(call, SCHEMA_OF_KEYS)
end

-- Puts a task that could run where it belongs: ready, or blocked at the first gate that holds it back. It is in no index yet.
-- `passed` is the gate that has just let it through.
function gates.admit(call, id, record, passed)
  if not is_keyed(record) then
    record[S_STATE] = READY_STATE
    if call.fair then
      draw_tag(call, record, nil)
    end
    return
  end
  local gate = meet(call, id, record, passed)
  if gate == nil or gate == IN_FLIGHT or (gate == RATE and not has(record, AGAIN)) then
    draw_tag(call, record, gate)
  end
  if gate == nil then
    hold(record, AGAIN, false)
  end
  record[S_STATE], record[S_GATE] = gate and BLOCKED_STATE or READY_STATE, gate or -1
end

-- A claim has taken a task that was ready.
function gates.claimed(call, record)
  fair.served(call, fair_line(record, nil), tag_of(record))
  gates.pay(call, record)
end

local function first_in_line(call, gate, key)
  if waiting_at(call, gate, key) <= 0 then
    return nil
  end
  write_places(call)
  local prefix = line_prefix(gate, key)
  local to = string.sub(prefix, 1, -2) .. '\1'
  local first = redis.call('ZRANGEBYLEX', call.keys[LINES], '[' .. prefix, '(' .. to, 'LIMIT', 0, 1)
  return first[1] and string.sub(first[1], -16)
end

-- When time lets the head of a rate's line through, in microseconds, or nil.
local function opens_us(call, key)
  local id = first_in_line(call, RATE, key)
  local record, rule = id and load_record(call, id), rate_of(call, key)
  if not record then
    return nil
  end
  return not rule and 0 or rule and opens_for(call, key, rule, record[S_COST] or 1)
end

-- Says when the key is looked at next: when the head of its rate's line may start, or, where it has nothing, when its tokens are
-- paid. One that has nothing and owes nothing is forgotten.
local function plan(call, key)
  local uses = gates.get(call, 'l' .. key)
  if not uses then
    return
  end
  local opens = uses[U_WAIT + 1] > 0 and opens_us(call, key)
  local due = opens and math.ceil(opens / 1000) or -1
  local is_idle = uses[U_HELD] == 0 and uses[U_WAIT] == 0 and uses[U_WAIT + 1] == 0
  local idle = is_idle and math.ceil(uses[U_PAID] / 1000) or -1
  local is_over = is_idle and idle <= call.now
  if is_over then
    gates.put(call, 'l' .. key, false)
  end
  local at = due >= 0 and due or (idle >= 0 and not is_over and IDLE_FROM + idle) or -1
  local before = uses[U_DUE] >= 0 and uses[U_DUE] or (uses[U_IDLE] >= 0 and IDLE_FROM + uses[U_IDLE]) or -1
  if at ~= before then
    if at >= 0 then
      redis.call('ZADD', call.keys[RATES], at, key)
    else
      redis.call('ZREM', call.keys[RATES], key)
    end
    call.rates_changed = true
  end
  if not is_over and (due ~= uses[U_DUE] or idle ~= uses[U_IDLE]) then
    set_use(call, key, U_DUE, due)
    set_use(call, key, U_IDLE, idle)
  end
end

-- How many more tasks this call lets through gates that time or a change of policy has opened.
function gates.admits(call)
  return math.max(0, ADMITTED_AT_A_TIME_MAX - (call.admitted or 0))
end

function gates.let_through(call, passed)
  call.admitted = (call.admitted or 0) + passed
end

-- Lets through whom a gate holds back no more, `most` at most. Answers how many.
local function open(call, gate, key, most)
  local passed = 0
  while passed < most do
    local id = first_in_line(call, gate, key)
    local record = id and load_record(call, id)
    if not record then
      break
    end
    local opens = gate == RATE and opens_us(call, key)
    if gate == ORDERING and holder_of_key(call, key) ~= '' or gate == IN_FLIGHT and not has_free_slot(call, key)
      or gate == RATE and (not opens or opens > call.now * 1000) then
      break
    end
    if gate ~= ORDERING and not has(record, AGAIN) then
      fair.served(call, fair_line(record, gate), tag_of(record))
    end
    local was, holds = lift(call, id, record)
    if not has(record, AGAIN) then
      forget_place(record)
    end
    record[S_STATE] = READY_STATE
    settle(call, id, record, was, holds, gate)
    passed = passed + 1
  end
  return passed
end

-- Takes back what a task held and holds no more, by bits.
function gates.give_up(call, record, freed)
  if bit.band(freed, HOLDS_KEY) ~= 0 then
    local key = record[S_ORDERING]
    local waiting = waiting_at(call, ORDERING, key)
    gates.put(call, 'o' .. key, waiting > 0 and { '', waiting })
  end
  if bit.band(freed, HOLDS_SLOT) ~= 0 then
    local key = record[S_LIMIT]
    set_use(call, key, U_HELD, math.max(0, uses_of(call, key)[U_HELD] - 1))
  end
end

-- Hands on what a task gave up, and says when its key is looked at next.
function gates.hand_on(call, record, freed)
  if bit.band(freed, HOLDS_KEY) ~= 0 then
    open(call, ORDERING, record[S_ORDERING], 1)
  end
  local key = own_key(record, S_LIMIT)
  if key then
    if bit.band(freed, HOLDS_SLOT) ~= 0 then
      open(call, IN_FLIGHT, key, 1)
      gates.let_through(call, open(call, RATE, key, gates.admits(call)))
    end
    plan(call, key)
  end
end

-- What of `holds` a task holds no more.
function gates.freed(record, holds)
  return bit.band(holds, bit.bnot(record[S_HOLDS] or 0), HOLDS_KEY + HOLDS_SLOT)
end

-- A task goes without its lease: it gives its slot up, and its ordering key unless it failed and the policy has it hold it.
function gates.go_without(call, record, failed)
  if is_keyed(record) then
    hold(record, HOLDS_SLOT, false)
    if not failed or gates.by_key(call).skips then
      hold(record, HOLDS_KEY, false)
    end
  end
end

-- A task comes back for a second start, to its old place.
function gates.come_again(call, record)
  if is_keyed(record) then
    hold(record, AGAIN, true)
  end
  if call.fair then
    set_rare(record, S_TAG, tag_of(record))
  end
end

-- Takes a task that waits out of its gates for good: `leave` and `hand_on` in one.
function gates.drop(call, id, record, forget_it)
  local holds = bit.band(record[S_HOLDS] or 0, HOLDS_KEY + HOLDS_SLOT)
  gates.leave(call, id, record)
  forget_it()
  if is_keyed(record) then
    gates.give_up(call, record, holds)
    gates.hand_on(call, record, holds)
  end
end

-- Reads together what the gates of these tasks hold.
function gates.load_of(call, ids)
  local fields = {}
  for _, id in ipairs(ids) do
    local record = call.records[id]
    if record and (is_keyed(record) or call.fair) then
      gates.fields(call, fields, record[S_BAND], own_key(record, S_ORDERING), own_key(record, S_LIMIT),
        own_key(record, S_FAIRNESS))
    end
  end
  gates.load(call, fields)
end

-- The fields of GATES that a task with these keys meets.
function gates.fields(call, fields, band, ordering, limit, fairness)
  fields[#fields + 1] = ordering and 'o' .. ordering
  fields[#fields + 1] = limit and 'l' .. limit
  if fairness or call.fair then
    fields[#fields + 1] = 'vr' .. band
    fields[#fields + 1] = 'fr' .. band .. '\0' .. (fairness or '')
  end
end

-- Goes on with the gates that a change of policy may have opened.
function gates.look(call)
  while call.unlooked and gates.admits(call) > 0 do
    write_places(call)
    local from = call.unlooked == '' and '-' or '(' .. call.unlooked .. '\1'
    local first = redis.call('ZRANGEBYLEX', call.keys[LINES], from, '+', 'LIMIT', 0, 1)[1]
    local name = first and string.match(first, '^(.-)%z')
    if not name then
      call.unlooked = nil
      return
    end
    local gate, key = string.byte(name) - 97, string.sub(name, 2)
    local most = gates.admits(call)
    local passed = open(call, gate, key, most)
    if gate ~= ORDERING then
      plan(call, key)
    end
    gates.let_through(call, math.max(1, passed))
    if passed < most then
      call.unlooked = name
    end
  end
end

-- Lets through a slice of those whom a rate holds back no more, and of those whom a change of policy lets through.
function gates.open_due(call)
  -- What this call planned META does not say yet.
  if call.rates_changed or (call.gate_due >= 0 and call.gate_due <= call.now) then
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', call.keys[RATES], '-inf', call.now, 'LIMIT', 0, gates.admits(call))) do
      local most = gates.admits(call)
      if most > 0 then
        local passed = open(call, RATE, key, most)
        plan(call, key)
        gates.let_through(call, math.max(1, passed))
      end
    end
    call.rates_changed = true
  end
  gates.look(call)
end

-- Forgets a slice of keys that have nothing and owe nothing any more, and says when the next ones are looked at. Answers the
-- fields of META.
function gates.finish(call)
  gates.look(call)
  if call.idle_due >= 0 and call.idle_due <= call.now then
    local idle = redis.call('ZRANGEBYSCORE', call.keys[RATES], IDLE_FROM, IDLE_FROM + call.now, 'LIMIT', 0, SWEEP_SLICE)
    for _, key in ipairs(idle) do
      local uses = gates.get(call, 'l' .. key)
      gates.put(call, 'l' .. key, uses and uses[U_IDLE] < 0 and uses)
    end
    bulk('ZREM', call.keys[RATES], idle)
    call.rates_changed = true
  end
  gates.write(call)
  if call.rates_changed then
    local first = first_score(call, RATES)
    call.gate_due = first < IDLE_FROM and first or -1
    local idle = redis.call('ZRANGEBYSCORE', call.keys[RATES], IDLE_FROM, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    call.idle_due = idle[2] and tonumber(idle[2]) - IDLE_FROM or -1
  end
  if call.unlooked ~= call.had_unlooked then
    if call.unlooked then
      redis.call('HSET', call.keys[META], 'unlooked', call.unlooked)
    else
      redis.call('HDEL', call.keys[META], 'unlooked')
    end
  end
  return { 'c7', call.counts[BLOCKED_STATE], 'gate_due', call.gate_due, 'idle_due', call.idle_due, 'fair', call.fair or -1 }
end

-- Where a blocked task stands: how many before it, and what its gate is like.
function gates.standing(call, id, record)
  local gate = record[S_GATE]
  local key = key_at(gate, record)
  local before = redis.call('ZLEXCOUNT', call.keys[LINES], '[' .. line_prefix(gate, key), '(' .. member_of(gate, id, record))
  local rule, answer = rule_of(call, key), { math.min(POSITION_MAX, before), gate, key }
  if gate == ORDERING then
    answer[4] = holder_of_key(call, key)
    return answer
  end
  answer[4] = rule and rule[R_PATTERN] or ''
  if gate == IN_FLIGHT then
    answer[5], answer[6] = uses_of(call, key)[U_HELD], rule and rule[R_SLOTS] or -1
  else
    local opens = opens_us(call, key)
    answer[5] = opens and math.ceil(opens / 1000) or -1
  end
  return answer
end
end
