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
    else
      result = cancel(call, id)
      at = at + 2
    end
    results[#results + 1] = result
  end
  return finish(call, results)
end

redis.register_function { function_name = 'PREFIX_work', callback = work, flags = { 'allow-oom' } }
