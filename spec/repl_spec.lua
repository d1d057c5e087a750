-- repl_spec.lua - the prompt, driven through a pseudo-terminal that script(1) makes.
local helpers = require "spec.helpers"

local dlua = os.getenv "DLUA" or arg[-1] or "build/dlua"

-- Types the pieces and gives what the terminal showed, and the history that is left. The next piece is typed when a
-- line, or Ctrl-C, has been answered with a prompt; after a table {piece, text}, when the text is shown.
local function session(pieces)
  local folder = helpers.folder()
  local log = folder:path "log"
  local command = "HOME='%s' SHELL=/bin/sh TERM=dumb script -qefc '%s' '%s' > '%s'"
  local keys = assert(io.popen(command:format(folder.root, dlua, log, folder:path "output"), "w"))
  keys:setvbuf "no"
  local function screen()
    local file = io.open(log)
    local text = file and file:read("a"):gsub("\r", "") or ""
    if file then file:close() end
    return text
  end
  local function prompts() return select(2, screen():gsub("\n%.?[.>] ", "")) end
  local function wait(condition, what)
    helpers.eventually(condition, ("%s after %q"):format(what, screen()))
  end
  wait(function() return prompts() == 1 end, "the first prompt")
  for _, piece in ipairs(pieces) do
    local count, length = prompts(), #screen()
    if type(piece) == "table" then
      keys:write(piece[1])
      wait(function() return screen():find(piece[2], length, true) end, piece[2])
    else
      keys:write(piece)
      wait(function() return prompts() > count end, "a prompt")
    end
  end
  keys:write "\4"
  keys:close()
  local text, history = screen(), io.open(folder:path ".dlua_history")
  local remembered = history and history:read("a") or ""
  if history then history:close() end
  folder:remove()
  return text, remembered
end

local function shows(text, part) assert.is_truthy(text:find(part, 1, true), ("%q lacks %q"):format(text, part)) end

describe("the prompt", function()
  it("prints values, keeps quiet at a semicolon, remembers", function()
    local text, history = session {
      "x = dlua.tensor({{1, 2}, {3, 4}}, {requires_grad = true})\n", "out = (3 * (x - 2) ^ 2):mean()\n", "out\n",
      "out:backward()\n", "x.grad\n", "111 * 3;\n", "for i = 1, 2 do\n", "print(i * 1001)\n", "end\n"}
    shows(text, "?name for help, Ctrl-D to leave")
    shows(text, "f32[]  4.5\n")
    shows(text, "f32[2x2]\n -1.5  0\n  1.5  3\n")
    assert.is_nil(text:find("333", 1, true))
    shows(text, "1001\n2002\n")
    shows(history, "out")
  end)

  it("says what is wrong without ending", function()
    local text = session {"x + 1\n", "dlua.ones(2) + dlua.ones(3)\n", "1 +* 2\n", "6 * 7\n"}
    shows(text, "add: shapes {2} and {3} do not broadcast")
    shows(text, "unexpected symbol")
    shows(text, "42\n")
  end)

  it("completes fields and methods", function()
    local text = session {"x = dlua.ones(2, 3)\n", "x:transp\t1, 2)\n", "dlua.linspa\t0, 1, 3)\n"}
    shows(text, "f32[3x2]\n")
    shows(text, "f32[3]  0  0.5  1\n")
  end)

  it("explains names", function()
    local text = session {"?sum\n", "?nn.Conv2d\n", "?no_such_name\n", "?\n"}
    shows(text, "Sum of")
    shows(text, "nn.Conv2d(")
    shows(text, "no help for 'no_such_name'")
    shows(text, "?name explains")
  end)

  it("comes back from Ctrl-C", function()
    local text = session {{"print(9 * 9) while true do end\n", "\n81\n"}, "\3",
      {"local unfinished", "local unfinished"}, "\3", "6 * 7\n"}
    shows(text, "interrupted\n")
    shows(text, "42\n")
  end)

  it("stays when Ctrl-C comes between two entries", function()
    local text = session {"f = getmetatable(io.stdout).__index flush = f.flush\n", -- what the prompt calls there
      "function f.flush(...) f.flush = flush io.popen('kill -INT $PPID'):close() return flush(...) end\n", "6 * 7\n"}
    shows(text, "42\n")
  end)

  it("survives values that cannot be printed", function()
    local text = session {"setmetatable({}, {__tostring = function() error('no words', 0) end})\n",
      "function endless() print(9 * 9) while true do end end\n",
      {"setmetatable({}, {__tostring = endless})\n", "\n81\n"}, "\3", "6 * 7\n"}
    shows(text, "no words\n")
    shows(text, "interrupted\n")
    shows(text, "42\n")
  end)
end)
