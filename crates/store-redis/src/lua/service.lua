-- KEYS: shards by the end of a retention, and shards that a server is sweeping, by when it is given up. ARGV: for how long
-- one is taken, most shards, how many were swept, those shards, then pairs of a time and a shard: it has a retention that ends
-- then. Answers shards whose time has come; they are the caller's to sweep. One whose sweeper has died comes back.
local function take(keys, argv)
  local now = store_time()
  local most, swept = tonumber(argv[2]), tonumber(argv[3])
  local done, ends = {}, {}
  for at = 4, 3 + swept do
    done[#done + 1] = argv[at]
  end
  for at = 4 + swept, #argv, 2 do
    ends[#ends + 1], ends[#ends + 2] = tonumber(argv[at]), argv[at + 1]
  end
  local given_up = redis.call('ZRANGEBYSCORE', keys[2], '-inf', now, 'LIMIT', 0, most)
  for _, shard in ipairs(given_up) do
    done[#done + 1] = shard
    ends[#ends + 1], ends[#ends + 2] = now, shard
  end
  bulk('ZREM', keys[2], done)
  for at = 1, #ends, 2 do
    redis.call('ZADD', keys[1], 'LT', ends[at], ends[at + 1])
  end
  local shards = redis.call('ZRANGEBYSCORE', keys[1], '-inf', now, 'LIMIT', 0, most)
  local places = {}
  for _, shard in ipairs(shards) do
    places[#places + 1], places[#places + 2] = now + tonumber(argv[1]), shard
  end
  bulk('ZREM', keys[1], shards)
  bulk('ZADD', keys[2], places)
  return shards
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
