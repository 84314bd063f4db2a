-- wrk: single transfers of 0.01 to or from one user, in turns. Arguments and output as transfer.lua's.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  key, first, count = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(os.time() * 1000 + seed)
  headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = key }
  turn = 0
end

function request()
  local a, b = first, first + math.random(1, count - 1)
  turn = turn + 1
  if turn % 2 == 0 then a, b = b, a end
  local body = string.format('{"from_user_id":%d,"to_user_id":%d,"amount":0.01}', a, b)
  return wrk.format("POST", "/api/transactions/transfer", headers, body)
end
