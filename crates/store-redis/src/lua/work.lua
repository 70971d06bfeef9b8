-- Pausing a paused queue keeps since when, and replaces by whom and why. A library that would hand its tasks out all the same
-- is kept from the shard from now on.
local function pause(call, by, reason)
  local since = call.paused and read_pause(call.paused)[1] or call.now
  call.paused, call.schema, call.touched = cmsgpack.pack({ since, by, reason }), math.max(call.schema, SCHEMA_OF_PAUSES), true
  redis.call('HSET', call.keys[META], 'paused', call.paused, 'schema', call.schema)
  return { 'P' }
end

local function resume(call)
  if call.paused then
    call.paused, call.resumed, call.touched = false, call.now, true
    redis.call('HDEL', call.keys[META], 'paused')
    redis.call('HSET', call.keys[META], 'resumed', call.now)
  end
  return { 'U' }
end

-- ARGV: path, most bytes of the answer, then operations, each a letter and its arguments.
local function work(keys, argv)
  local call, refused = begin(keys, argv[1])
  if not call then
    return refused
  end
  call.answer_max = math.min(ANSWER_MAX_BYTES, tonumber(argv[2]))
  local results, swept, at = {}, false, 3
  while at <= #argv do
    local kind = argv[at]
    local id, token = argv[at + 1], argv[at + 2]
    local result
    if kind == 'C' then
      if not swept then
        move_due(call)
        swept = true
      end
      result = claim(call, tonumber(argv[at + 1]), tonumber(argv[at + 2]), argv[at + 3], argv[at + 4])
      at = at + 5
    elseif kind == 'D' then
      result = complete(call, id, token, argv[at + 3], argv[at + 4])
      at = at + 5
    elseif kind == 'F' then
      result = fail(call, id, token, argv[at + 3], tonumber(argv[at + 4]), tonumber(argv[at + 5]), argv[at + 6])
      at = at + 7
    elseif kind == 'R' then
      result = release(call, id, token, tonumber(argv[at + 3]))
      at = at + 4
    elseif kind == 'H' then
      result = heartbeat(call, id, token, tonumber(argv[at + 3]), argv[at + 4], argv[at + 5])
      at = at + 6
    elseif kind == 'P' then
      result = pause(call, argv[at + 1], argv[at + 2])
      at = at + 3
    elseif kind == 'U' then
      result = resume(call)
      at = at + 1
    else
      result = cancel(call, id)
      at = at + 2
    end
    results[#results + 1] = result
  end
  return finish(call, results)
end

redis.register_function { function_name = 'PREFIX_work', callback = work, flags = { 'allow-oom' } }
