-- The extraction of agent-meter in the usual way of small Lua filters: string matches, not a parser.
local FILTER = "envoy.filters.http.lua"

function envoy_on_request(handle)
  local body = handle:body()
  if body == nil then return end
  local text = body:getBytes(0, body:length())
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set(FILTER, "method", string.match(text, '"method"%s*:%s*"([^"]*)"') or "")
  metadata:set(FILTER, "tool", string.match(text, '"name"%s*:%s*"([^"]*)"') or "")
end

function envoy_on_response(handle)
  -- Chunk by chunk, so that an event stream is not held back; a match across two chunks is missed.
  for chunk in handle:bodyChunks() do
    local text = chunk:getBytes(0, chunk:length())
    local is_error = string.match(text, '"isError"%s*:%s*(%a+)')
    if is_error ~= nil then
      handle:streamInfo():dynamicMetadata():set(FILTER, "is_error", is_error == "true")
    end
  end
end
