do
-- Which queue has which number. A queue's path is `tenant/name`. Its tasks lie in another slot than this registry, so a
-- queue is opened in steps, each safe when it is the last one: a number is proposed (`open`), the shard's META takes the
-- path (`settle`), the registry takes the number (`register`), and only then anybody learns it. A shard without a path takes
-- no task, and a path is written anew under a fresh number only: so no task is accepted into a shard that the registry
-- does not name, whatever is lost in between.
--
-- A queue is deleted in two steps. First its shard loses all that it has, the path too (`clear`), then the registry the number
-- (`unregister`). Between them the shard takes no task. Whoever opens the queue meanwhile finds a number that cannot be settled,
-- and replaces it; whoever repeats the deletion goes on with the second step.
local NUMBERS, PATHS, NAMES, OPENED = 1, 2, 3, 4

do
-- Older servers add to NUMBERS and not to NAMES, which lists the paths in their order.
local function list_names(keys)
  if redis.call('ZCARD', keys[NAMES]) == redis.call('HLEN', keys[NUMBERS]) then
    return
  end
  local places = {}
  for _, path in ipairs(redis.call('HKEYS', keys[NUMBERS])) do
    places[#places + 1], places[#places + 2] = 0, path
  end
  bulk('ZADD', keys[NAMES], places)
end

-- What a tenant's paths begin with, as bounds: '0' follows '/'.
local function paths_of(tenant)
  return '[' .. tenant .. '/', '(' .. tenant .. '0'
end

local function tenant_of(path)
  return string.match(path, '^[^/]*')
end

-- Why there is no room for one queue more: the tenant's, or the store's.
local function crowded(keys, path)
  list_names(keys)
  if redis.call('ZLEXCOUNT', keys[NAMES], paths_of(tenant_of(path))) >= QUEUES.of_tenant then
    return { 'L', QUEUES.of_tenant }
  end
  if redis.call('HLEN', keys[NUMBERS]) >= QUEUES.of_store then
    return { 'L', QUEUES.of_store }
  end
  return nil
end

-- ARGV: path, a number that it must not have (0 for none). Answers {'K', its number}, {'P', one that is free} or {'L', the
-- limit that is reached}. Numbers are scattered by the clock and not counted up: where the registry lost its last queues, or
-- all, a server that still knows one of them must not share its number with a new one.
local function open(keys, argv)
  local known = redis.call('HGET', keys[NUMBERS], argv[1])
  if known and known ~= argv[2] then
    return { 'K', tonumber(known) }
  end
  local full = not known and crowded(keys, argv[1])
  if full then
    return full
  end
  local time = redis.call('TIME')
  local queues = redis.call('HLEN', keys[NUMBERS])
  local number = (tonumber(time[1]) * 1000003 + tonumber(time[2]) * 7919 + queues) % QUEUES.numbers + 1
  while redis.call('HEXISTS', keys[PATHS], number) == 1 or string.format('%d', number) == argv[2] do
    number = number % QUEUES.numbers + 1
  end
  return { 'P', number }
end

-- KEYS: the META of a shard. ARGV: path; 'new' for a number that was proposed, 'known' for one that the registry names.
-- Answers 'O' when it is the path's now, else 'X': the number is not to be used for it. A shard that an older server has
-- written to has no path, and takes it.
local function settle(keys, argv)
  local meta = redis.call('HMGET', keys[1], 'path', 'now')
  if meta[1] then
    return meta[1] == argv[1] and argv[2] == 'known' and 'O' or 'X'
  end
  local written_before = meta[2] ~= false
  if written_before ~= (argv[2] == 'known') then
    return 'X'
  end
  redis.call('HSET', keys[1], 'path', argv[1], 'schema', SCHEMA_OF_NEW)
  return 'O'
end

-- ARGV: path, number, the number that it replaces (0 for none). Answers as `open`: 'K' with this number, or with another
-- that somebody else was faster to register; 'P' when the number is taken meanwhile.
local function register(keys, argv)
  local path, number = argv[1], argv[2]
  local known = redis.call('HGET', keys[NUMBERS], path)
  if known and known ~= argv[3] then
    return { 'K', tonumber(known) }
  end
  if redis.call('HEXISTS', keys[PATHS], number) == 1 then
    return { 'P', 0 }
  end
  local full = not known and crowded(keys, path)
  if full then
    return full
  end
  redis.call('HSET', keys[NUMBERS], path, number)
  redis.call('HSET', keys[PATHS], number, path)
  redis.call('ZADD', keys[NAMES], 0, path)
  if known then
    redis.call('HDEL', keys[PATHS], known)
  end
  publish(keys[OPENED], number .. ' ' .. path)
  return { 'K', tonumber(number) }
end

-- ARGV: tenant, the name that the page begins behind ('' for none), most queues. Answers paths and numbers in turn.
local function list(keys, argv)
  list_names(keys)
  local first, last = paths_of(argv[1])
  if argv[2] ~= '' then
    first = '(' .. argv[1] .. '/' .. argv[2]
  end
  local paths = redis.call('ZRANGEBYLEX', keys[NAMES], first, last, 'LIMIT', 0, tonumber(argv[3]))
  local answer = {}
  for at = 1, #paths, SLICE do
    local last_of_slice = math.min(at + SLICE - 1, #paths)
    local numbers = redis.call('HMGET', keys[NUMBERS], unpack(paths, at, last_of_slice))
    for offset = 1, last_of_slice - at + 1 do
      if numbers[offset] then
        answer[#answer + 1], answer[#answer + 2] = paths[at + offset - 1], tonumber(numbers[offset])
      end
    end
  end
  return answer
end

redis.register_function { function_name = 'PREFIX_open', callback = open, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_settle', callback = settle, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_register', callback = register, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_list', callback = list, flags = { 'allow-oom' } }
end

do
local SWEEPS, SWEEPING = 5, 6

-- KEYS: all of a shard. ARGV: path. Answers 1 when the shard held this queue and is empty now, 0 when it held none, or another;
-- then how many of its tasks are delayed, blocked, ready and leased: with one of them nothing is done. A shard that an older
-- server has written to has no path, and is the queue's.
local function clear(keys, argv)
  local meta = redis.call('HMGET', keys[META], 'path', 'now', 'schema')
  if not meta[1] and not meta[2] or meta[1] and meta[1] ~= argv[1] then
    return { 0, 0, 0, 0, 0 }
  end
  if tonumber(meta[3] or SCHEMA_OF_NEW) > SCHEMA then
    return redis.error_reply(string.format('NEWER %d', tonumber(meta[3])))
  end
  local live = { 0 }
  for _, key in ipairs({ DELAYED, BLOCKED, READY, LEASES }) do
    live[#live + 1] = redis.call('ZCARD', keys[key])
  end
  if live[2] + live[3] + live[4] + live[5] == 0 then
    redis.call('UNLINK', unpack(keys))
    live[1] = 1
  end
  return live
end

-- ARGV: path, number, the shard as the times of sweeps have it. Answers whether the registry named the number for this path.
local function unregister(keys, argv)
  if redis.call('HGET', keys[NUMBERS], argv[1]) ~= argv[2] then
    return 0
  end
  redis.call('HDEL', keys[NUMBERS], argv[1])
  redis.call('HDEL', keys[PATHS], argv[2])
  redis.call('ZREM', keys[NAMES], argv[1])
  redis.call('ZREM', keys[SWEEPS], argv[3])
  redis.call('ZREM', keys[SWEEPING], argv[3])
  publish(keys[OPENED], 'deleted ' .. argv[2] .. ' ' .. argv[1])
  return 1
end

redis.register_function { function_name = 'PREFIX_clear', callback = clear, flags = { 'allow-oom' } }
redis.register_function { function_name = 'PREFIX_unregister', callback = unregister, flags = { 'allow-oom' } }
end
end
