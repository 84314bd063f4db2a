-- wrk: GETs of PATH followed by a random number. Arguments: path, first number, how many, then name and value of each header.

local threads = 0

function setup(thread)
  threads = threads + 1
  thread:set("seed", threads)
end

function init(args)
  math.randomseed(os.time() * 1000 + seed)
  local headers = {}
  for i = 4, #args, 2 do headers[args[i]] = args[i + 1] end
  requests = {}
  for i = 0, tonumber(args[3]) - 1 do
    requests[i + 1] = wrk.format("GET", args[1] .. string.format("%d", tonumber(args[2]) + i), headers)
  end
end

function request()
  return requests[math.random(#requests)]
end
