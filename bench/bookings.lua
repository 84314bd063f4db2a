-- wrk: bookings of one ticket of one event, each by a guest of its own. Arguments: API key, the event's id.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

-- All requests are alike but for nine digits: what is around them is made once, for wrk runs on the server's processors.
function init(args)
  local headers = { ["Content-Type"] = "application/json", ["X-API-Key"] = args[1] }
  local mark = "#########"
  local body = string.format('{"user_id":"guest-%d-%d-%s","event_id":"%s","ticket_count":1}', os.time(), seed, mark, args[2])
  local whole = wrk.format("POST", "/api/bookings", headers, body)
  local at = whole:find(mark, 1, true)
  before, after = whole:sub(1, at - 1), whole:sub(at + #mark)
  turn = 0
end

function request()
  turn = turn + 1
  return before .. string.format("%09d", turn) .. after
end
