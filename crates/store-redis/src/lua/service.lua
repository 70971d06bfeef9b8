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
