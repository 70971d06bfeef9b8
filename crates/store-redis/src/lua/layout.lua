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
-- What only tasks with keys use: blocked tasks in the order in which they came; who holds a key, what its tasks hold, and fairness
-- accounts; all lines, as members of equal score; limit keys by when they are looked at next.
local BLOCKED, GATES, LINES, RATES = 13, 14, 15, 16
-- The last tick of each schedule that became a task here.
local TICKS = 17

-- Fields of a state record.
local S_STATE, S_BAND, S_SEQ, S_FAILED, S_EXPIRIES, S_KEPT_MS, S_DEAD_MS, S_READY_AT, S_UNTIL, S_CANCEL, S_REASON =
  1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local S_MAX, S_RETRY, S_KEY, S_CREATED, S_TOKEN, S_LEASE_MS, S_STARTED, S_WORKER, S_ENDED, S_EXTRA =
  12, 13, 14, 15, 16, 17, 18, 19, 20, 21
-- Those that most tasks lack; -1 is none. The deadline, from when on the key is free, and the deadline as it was asked for.
-- When its holder sent a heartbeat last.
-- What its start takes of the rate's tokens, 1 where that is not said.
local S_DEADLINE, S_KEY_UNTIL, S_DEADLINE_MS, S_BEAT, S_COST = 22, 23, 24, 25, 26
-- The keys of a task; its place among the ready ones or in a line, where that is not S_SEQ; the gate that holds it back; and what it
-- holds, always there where a task has keys.
local S_ORDERING, S_LIMIT, S_FAIRNESS, S_TAG, S_GATE, S_HOLDS = 27, 28, 29, 30, 31, 32
local S_ALWAYS = 21
-- The key was given to another task since.
local GIVEN_UP = 0

-- Codes of states and reasons, as the server has them.
local DELAYED_STATE, READY_STATE, LEASED, COMPLETED, FAILED, DEAD_STATE, CANCELLED, BLOCKED_STATE = 0, 1, 2, 3, 4, 5, 6, 7
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
