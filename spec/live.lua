-- live.lua - the n-th allocation fails, for every n, alone or with all that follow: the call raises a clean error or
-- recovers, and what it had allocated is free again. live.check does it to the runtime's allocations, live.check_lua to
-- Lua's own. DLUA_FAULT_STEP=16 tries every 16th n (for slow builds).
local dlua = require "dlua"

local step = tonumber(os.getenv "DLUA_FAULT_STEP") or 1
local live = {injections = 0, step = step}

-- Bytes in use once everything is collected, or once they are down to `base`: a finalizer may leave work for the next
-- collection.
local function settled(base)
  for _ = 1, 3 do
    collectgarbage()
    if base and dlua.memory().live <= base then break end
  end
  return dlua.memory().live
end

-- The bytes that a call may leave in use: a number of each kind is kept for the next call.
local function base_of()
  local _ = dlua.ones(1) + 1 + 1.5
  return settled()
end

-- Calls f while the n-th allocation fails, with `on` all later ones too; what pcall gives. With `on` f must raise if it
-- got as far as the n-th: threads that share their work out otherwise may allocate less than they did when counted.
function live.short(n, on, f)
  local before = dlua.test.allocation_count()
  dlua.test.fail_allocation(n, on)
  local ok, result = pcall(f)
  dlua.test.fail_allocation(0)
  live.injections = live.injections + 1
  local reached = dlua.test.allocation_count() - before >= n
  assert(not (on and ok and reached), "memory had run out and nothing was raised")
  return ok, result
end

-- Runs f once to count its allocations, then once for each of them failing. f keeps nothing and returns nothing.
-- With `on` all later ones fail too, so that the second try after a collection fails as well: f must raise.
function live.check(f, on)
  f()
  local base = base_of()
  local before = dlua.test.allocation_count()
  f()
  local count = dlua.test.allocation_count() - before
  for n = 1 + math.random(0, step - 1), count, step do
    local ok, message = live.short(n, on, f)
    if ok then message = nil end -- what f returned may hold tensors
    assert(ok or type(message) == "string" and not message:find "\n", message)
    local now = dlua.memory().live
    if now > base then now = settled(base) end -- a full collection only where there is something to collect
    assert(now <= base, ("allocation %d of %d failed: %d bytes live before, %d after"):format(n, count, base, now))
  end
end

-- The same for Lua's own allocations. A failing one raises "not enough memory", or Lua finds some after all; what
-- matters is that nothing of the runtime's is lost on the way and that the next call works.
function live.check_lua(f)
  f()
  local base = base_of()
  dlua.test.fail_lua_allocation(1 << 60)
  local before = dlua.test.lua_allocation_count()
  f()
  local count = dlua.test.lua_allocation_count() - before
  dlua.test.fail_lua_allocation(0)
  for n = 1 + math.random(0, step - 1), count, step do
    dlua.test.fail_lua_allocation(n)
    local ok, message = pcall(f)
    dlua.test.fail_lua_allocation(0)
    live.injections = live.injections + 1
    if ok then message = nil end -- what f returned may hold tensors
    assert(ok or type(message) == "string" and not message:find "\n", message)
    local now = dlua.memory().live
    if now > base then now = settled(base) end
    assert(now <= base, ("Lua allocation %d of %d failed: %d bytes live before, %d after"):format(n, count, base, now))
  end
  f()
end

return live
