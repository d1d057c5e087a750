-- late.lua - watching a number that a device computes, without waiting for it: it is sent to the host, and looked for
-- there at the next steps, until it has arrived. At most one is on its way; what is offered meanwhile is let go, so a
-- number that must not be missed has to last on the device (a maximum, a sum).
local dlua = require "dlua"
local class = require "dlua.class"

local Late = class "Late"

function Late:init() self.ticket, self.about = nil, nil end

-- Sends a tensor of one element unless another is on its way; about comes back with it.
function Late:offer(x, about)
  if self.ticket then return end
  self.ticket, self.about = dlua.send(x), about
end

-- The number and what it is about, or nil while there is none.
function Late:take()
  local value = self.ticket and dlua.receive(self.ticket)
  if not value then return nil end
  local about = self.about
  self:init()
  return value, about
end

return Late
