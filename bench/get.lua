-- wrk: one GET again and again. Arguments: path, then name and value of each header.
-- Prints one line "RESULT {json}" at the end.

function init(args)
  local headers = {}
  for i = 2, #args, 2 do headers[args[i]] = args[i + 1] end
  bytes = wrk.format("GET", args[1], headers)
end

function request()
  return bytes
end
