-- gpu_page_spec.lua - what gpu/README.md says about files and dtypes is so.
local dlua = require "dlua"
local lfs = require "lfs"

local page = assert(io.open("gpu/README.md", "r")):read "a"

-- The lines below a heading, up to the next.
local function section(heading)
  return assert(page:match("\n## " .. heading .. "\n(.-)\n## "), "no section " .. heading)
end

local function quoted(text)
  local set = {}
  for word in text:gmatch "`([^`]+)`" do set[word] = true end
  return set
end

describe("gpu/README.md", function()
  -- What the first column of a table names.
  local function listed(tables)
    local named = {}
    for cell in tables:gmatch "\n| ([^|]+) |" do
      for name in pairs(quoted(cell)) do named[name] = true end
    end
    return named
  end

  it("names every file of the module, and no other", function()
    local there, headers = {}, {}
    for name in lfs.dir "gpu" do
      local is_folder = lfs.attributes("gpu/" .. name, "mode") == "directory"
      if not name:find "^%." and name ~= "README.md" then there[is_folder and name .. "/" or name] = true end
    end
    for name in lfs.dir "gpu/kernels" do
      if name:find "%.h$" then headers[name] = true end
    end
    local files, shared = section "Map":match "^(.-)\nIn `kernels/`(.*)$"
    assert.same(there, listed(files))
    assert.same(headers, listed(shared))
  end)

  it("says for every op what autocast runs it in", function()
    local precision = section "Precision"
    local lower = quoted(assert(precision:match "\n| the lower one[^|]*|([^\n]+)"))
    local f32 = quoted(assert(precision:match "\n| f32 | (`[^\n]+)"))
    local nothing = quoted(assert(precision:match "parameters in f32 | ([^\n]+)"))
    for _, name in ipairs(dlua.op_info()) do
      local rule = dlua.op_info(name).autocast
      assert.equal(rule == "lower", lower[name] == true, name)
      assert.equal(rule == "f32", f32[name] == true, name)
      assert.equal(rule == "nothing", nothing[name] == true, name)
      lower[name], f32[name], nothing[name] = nil, nil, nil
    end
    assert.same({}, lower)
    assert.same({}, f32)
    assert.same({}, nothing)
  end)

  it("names scripts and pages that are there", function()
    local count = 0
    for path in page:gmatch "`([%w_./]+%.%w+)`" do
      local file = path:match "^%.%./(.+)" or path:match "^spec/.+"
      if file then
        count = count + 1
        assert.equal("file", lfs.attributes(file, "mode"), file)
      end
    end
    assert.is_true(count >= 5)
  end)
end)
