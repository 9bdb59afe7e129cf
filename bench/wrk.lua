-- Arguments: a number for this run, and the body of a POST. `{n}` in path, headers and body becomes another number each time.
-- The result is the last line, as JSON.

local number = 0
local run = ""

local function numbered(text)
  return text and (text:gsub("{n}", run .. number))
end

local function numbered_headers()
  local headers = {}
  for name, value in pairs(wrk.headers) do
    headers[name] = numbered(value)
  end
  return headers
end

function init(arguments)
  run = arguments[1]
  local body = arguments[2]
  if body then
    wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
  end
  if body or wrk.path:find("{n}", 1, true) then
    request = function()
      number = number + 1
      return wrk.format(nil, numbered(wrk.path), body and numbered_headers(), numbered(body))
    end
  end
end

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests":%d,"microseconds":%d,"p50_us":%d,"p90_us":%d,"p95_us":%d,"p99_us":%d,"failed":%d,"refused":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(95),
    latency:percentile(99), errors.connect + errors.read + errors.write + errors.timeout, errors.status
  ))
end
