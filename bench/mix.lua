-- A mix of requests. Arguments: a number for this run, the body of a POST, its Authorization header, and of how many
-- requests how many read past the cache and how many write; the others are alike, and cached. `{n}` as in wrk.lua.

local number, run, body, author, parts, missed, written = 0, "", "", "", 1, 0, 0
local plain, distinct

function init(arguments)
  run, body, author = arguments[1], arguments[2], arguments[3]
  parts, missed, written = tonumber(arguments[4]), tonumber(arguments[5]), tonumber(arguments[6])
  distinct = wrk.path
  plain = wrk.format("GET", (distinct:gsub("{n}", "1")))
end

-- Spread over the cycle, so that no burst of one kind stands in for the mix.
local function is_turn(count, offset)
  return (number * count + offset) % parts < count
end

function request()
  number = number + 1
  local unique = run .. number
  if is_turn(written, 0) then
    local headers = { ["Host"] = wrk.headers["Host"], ["Content-Type"] = "application/json", ["Authorization"] = author }
    return wrk.format("POST", (distinct:gsub("?.*", "")), headers, (body:gsub("{n}", unique)))
  end
  if is_turn(missed, 7) then
    return wrk.format("GET", (distinct:gsub("{n}", unique)))
  end
  return plain
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50_us":%d,"p90_us":%d,"p95_us":%d,"p99_us":%d,"failed":%d,"refused":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(95),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.timeout, errors.status
  ))
end
