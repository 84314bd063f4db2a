-- wrk: bookings of one ticket of one event, each by a guest of its own. Arguments: API key, the event's id.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  key, event = args[1], args[2]
  headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = key }
  prefix = string.format("guest-%d-%d-", os.time(), seed)
  turn = 0
end

function request()
  turn = turn + 1
  local body = string.format('{"user_id":"%s%d","event_id":"%s","ticket_count":1}', prefix, turn, event)
  return wrk.format("POST", "/api/bookings", headers, body)
end
