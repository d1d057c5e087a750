-- frame.lua - a table read from CSV.
--
--   local frame = data.csv("airline-passengers.csv")
--   frame.names                           --> {"Month", "Passengers"}
--   frame.Passengers                      -- f32 {144}
--   frame.Month                           -- a list of strings
--   frame:tensor {"Passengers"}           -- f32 {144,1}
--
-- A column is numbers when its first cell that is not empty is one; then every other must be (empty ones are NaN), or
-- the error names the line. Other columns are lists of strings.
local core = require "dlua.core"
local class = require "dlua.class"

local Frame = class "Frame"

function Frame:init(names, columns, rows)
  self.names, self.rows, self.columns = names, rows, columns
  for k, name in ipairs(names) do
    if Frame[name] == nil and rawget(self, name) == nil then rawset(self, name, columns[k]) end
  end
end

-- A column by name or number; unknown names are errors.
--   frame:column "Passengers"
function Frame:column(name)
  if self.columns[name] then return self.columns[name] end
  for k, known in ipairs(self.names) do
    if known == name then return self.columns[k] end
  end
  local nearest = core.nearest(tostring(name), self.names)
  return core.fail("data.csv: there is no column %s (%s)", tostring(name),
    nearest and ("did you mean %s?"):format(nearest) or "columns: " .. table.concat(self.names, ", "))
end

-- Columns of numbers side by side: {rows, columns}. Without names all columns, which then must be numbers.
--   frame:tensor {"HUFL", "OT"}
function Frame:tensor(names)
  local columns = {}
  for k, name in ipairs(names or self.names) do
    columns[k] = self:column(name)
    if not core.is_tensor(columns[k]) then core.fail("data.csv: column %s is text, not numbers", tostring(name)) end
  end
  return core.stack(columns, 2)
end

function Frame:__len() return self.rows end

function Frame:__tostring()
  return ("%d rows: %s"):format(self.rows, table.concat(self.names, ", "))
end

return Frame
