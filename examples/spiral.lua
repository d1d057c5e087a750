-- spiral.lua - three spiral arms of points, told apart by a small network: dlua spiral.lua
--
-- No files are read: the points are made here, and the last picture shows where the network sees which arm.
local dlua = require "dlua"
local nn, optim = dlua.nn, dlua.optim

local args = dlua.args {
  description = "Classify the points of three spiral arms.",
  {"points", default = 150,    help = "points on each arm"},
  {"steps",  default = 1000,   quick = 100, help = "training steps, each on all points"},
  {"device", default = "auto", help = "cpu, cuda, or auto"},
  {"seed",   default = 1,      help = "random seed"},
  {"quick",  default = false,  help = "fewer steps, to see that it runs"},
}
dlua.seed(args.seed)
local device = dlua.device(args.device)

-- Points {arms * points, 2} and the arm that each lies on.
local function spirals(arms, points)
  local angles, radii, labels = {}, {}, {}
  for arm = 1, arms do
    for k = 1, points do
      local along = k / points
      angles[#angles + 1] = 2 * math.pi * arm / arms + 4 * along
      radii[#radii + 1] = along
      labels[#labels + 1] = arm
    end
  end
  local angle = dlua.tensor(angles) + 0.15 * dlua.randn(#angles)
  local radius = dlua.tensor(radii)
  local places = dlua.stack({radius * angle:cos(), radius * angle:sin()}, 2)
  return places:to(device), dlua.tensor(labels, {dtype = "i64", device = device})
end

local net = nn.Sequential {nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 3)}:to(device)
local opt = optim.Adam(net:parameters(), {lr = 0.01})
local points, arms = spirals(3, args.points)

local function accuracy() return net(points):argmax(2):eq(arms):to("f32"):mean():item() end

for step = 1, args.steps do
  local loss = net(points):cross_entropy(arms)
  opt:zero_grad()
  loss:backward()
  opt:step()
  if step % math.max(1, args.steps // 5) == 0 then
    print(("step %4d   loss %.4f   accuracy %.1f %%"):format(step, loss:item(), 100 * accuracy()))
  end
end

local function picture(rows, columns)
  local x, y = dlua.linspace(-1, 1, columns), dlua.linspace(1, -1, rows)
  local grid = dlua.stack({x:unsqueeze(1):expand(rows, columns), y:unsqueeze(2):expand(rows, columns)}, 3)
  local winner = dlua.no_grad(function() return net(grid:reshape(-1, 2):to(device)):argmax(2) end):totable()
  local marks, lines = {".", "+", "#"}, {}
  for row = 1, rows do
    local line = {}
    for column = 1, columns do line[column] = marks[winner[(row - 1) * columns + column]] end
    lines[row] = table.concat(line)
  end
  return table.concat(lines, "\n")
end
print(picture(20, 40))
