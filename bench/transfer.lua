-- wrk: single transfers of 0.01 between random distinct users. Arguments: API key, first user id, number of users.
-- Prints one line "RESULT {json}" at the end.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  key, first, count = args[1], tonumber(args[2]), tonumber(args[3])
  math.randomseed(os.time() * 1000 + seed)
  headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = key }
end

function request()
  local a = math.random(0, count - 1)
  local b = math.random(0, count - 2)
  if b >= a then b = b + 1 end
  local body = string.format('{"from_user_id":%d,"to_user_id":%d,"amount":0.01}', first + a, first + b)
  return wrk.format("POST", "/api/transactions/transfer", headers, body)
end
