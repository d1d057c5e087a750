-- limits_spec.lua - what a file of data can make a reader take (R18): at most 4 times the bytes that it holds and
-- 32 MiB, measured in a process of its own. Bytes are the file's, or, where text or compression makes the values many
-- times larger than the file, those of the values, whose number is checked against a limit first.
local dlua = require "dlua"
local helpers = require "spec.helpers"

local program = os.getenv "DLUA" or arg[-1] or "build/dlua"
local MIB = 1 << 20
local sanitized = os.getenv "DLUA_SANITIZED" -- its own memory hides the reader's

local folder

setup(function() folder = helpers.folder() end)

teardown(function() folder:remove() end)

-- A file of these pieces, each a string or {string, times}; its path and size.
local function write(name, pieces)
  local path = folder:path(name)
  local file = assert(io.open(path, "wb"))
  for _, piece in ipairs(pieces) do
    local text, left = piece, 1
    if type(piece) == "table" then text, left = piece[1], piece[2] end
    local block = math.max(1, MIB // #text)
    local many = left >= block and text:rep(block)
    while left >= block do
      file:write(many)
      left = left - block
    end
    file:write(text:rep(left))
  end
  local size = file:seek()
  file:close()
  return path, size
end

-- Most memory, in bytes, that a process took to run code, and what it printed.
local function peak(code, ...)
  local script = write("script.lua", {'local dlua = require "dlua"\n' .. code, [[

    for line in io.lines "/proc/self/status" do
      local kib = line:match "^VmHWM:%s+(%d+) kB"
      if kib then print("", kib) end
    end]]})
  local pipe = assert(io.popen(("(ulimit -t 300; %s %s %s) 2>&1"):format(program, script, table.concat({...}, " "))))
  local text = pipe:read "a"
  pipe:close()
  local output, kib = text:match "^(.-)\n?\t(%d+)\n$"
  assert(kib, text)
  return tonumber(kib) * 1024, output
end

-- Reads a file with code in a process of its own: it must print what is wanted and take no more than allowed, if not
-- at once then in one of a few tries: where the system lays blocks, and how large its pages are there, adds to them.
local function reads(code, path, bytes, wanted)
  local allowed, took = 4 * bytes + 32 * MIB, nil
  for _ = 1, 5 do
    local base = peak ""
    local most, output = peak(code, path)
    assert.matches(wanted, output)
    took = most - base
    if sanitized or took <= allowed then return end
  end
  error(("%s: %.1f MiB for %.1f MiB of data, more than %.1f"):format(path:match "[^/]*$", took / MIB, bytes / MIB,
    allowed / MIB))
end

local load = "local x, why = dlua.load(arg[1]) print(x and 'read' or why)"

local function header(size) return ("<I8"):pack(size) end

describe("the header of a safetensors file", function()
  -- {"__metadata__":{"k":"xxx…"}} of this many bytes.
  local function long(name, size)
    local before, after = '{"__metadata__":{"k":"', '"}}'
    return write(name, {header(size), before, {"x", size - #before - #after}, after})
  end

  it("may have 100 MB", function()
    local path, size = long("long.safetensors", 100000000)
    reads(load, path, size, "read")
  end)

  it("may not have a byte more", function()
    local path = long("longer.safetensors", 100000001)
    reads(load, path, 0, "limit 100000000")
  end)

  it("may not be longer than the file", function()
    local path = write("short.safetensors", {header(99999999), "{}"})
    reads(load, path, 0, "99999999 bytes does not fit")
  end)

  -- Entries without values, one after the other.
  local function many(name, count)
    local list = {}
    for k = 1, count do list[k] = ('"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'):format(k) end
    local text = "{" .. table.concat(list, ",") .. "}"
    return write(name, {header(#text), text})
  end

  local function pairs_of(name, count)
    local list = {}
    for k = 1, count do list[k] = ('"%x":""'):format(k) end
    local text = '{"__metadata__":{' .. table.concat(list, ",") .. "}}"
    return write(name, {header(#text), text})
  end

  it("may describe 65536 tensors", function()
    local path, size = many("many.safetensors", 1 << 16)
    reads(load, path, size, "read")
    path, size = many("more.safetensors", 1000000)
    reads(load, path, size, "more than 65536 tensors")
  end)

  it("may have 131072 pairs", function()
    local path, size = pairs_of("pairs.safetensors", 1 << 17)
    reads(load, path, size, "read")
    path, size = pairs_of("more.safetensors", 1000000)
    reads(load, path, size, "more than 131072 pairs")
  end)

  it("is looked up in time when every tensor has a sum and another name", function()
    local x = dlua.ones(1)
    local named = {}
    for k = 1, 20000 do named["t" .. k] = x:clone() end
    local path = folder:path "own.safetensors"
    dlua.save(path, named)
    assert.is_truthy(helpers.soon(sanitized and 10 or 1, function() return dlua.load(path) end))
  end)

  it("names everything once", function()
    local entry = '"a\\u0062":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    local text = "{" .. entry .. "," .. entry:gsub("\\u0062", "b") .. "}"
    local path = write("twice.safetensors", {header(#text), text})
    reads(load, path, 0, "ab appears twice")
    text = '{"__metadata__":{"k":"1","k":"2"}}'
    path = write("twice.safetensors", {header(#text), text})
    reads(load, path, 0, "k appears twice")
  end)
end)

describe("an idx file", function()
  local idx = "local x, why = dlua.data.idx(arg[1]) print(x and 'read' or why)"
  local failing = "local ok, why = pcall(dlua.data.idx, arg[1]) print(ok and why and 'read' or why)"

  local function packed(name, promised, given)
    local plain = write("plain", {("BBBB>I4"):pack(0, 0, 8, 1, promised), {"\0", given}})
    local path = folder:path(name)
    assert(os.execute(("gzip -c '%s' > '%s'"):format(plain, path)))
    os.remove(plain)
    return path
  end

  it("takes three times its size", function()
    local path, size = write("plain-idx", {("BBBB>I4"):pack(0, 0, 8, 1, 32 * MIB), {"\0", 32 * MIB}})
    reads(idx, path, size, "read")
  end)

  it("takes what it unpacks to and no more", function()
    reads(idx, packed("a.gz", 64 * MIB, 64 * MIB), 64 * MIB, "read")
  end)

  it("takes what arrives, not what it promises", function()
    reads(failing, packed("b.gz", 900 * MIB, MIB), MIB, "cannot hold")
    reads(failing, packed("c.gz", 63 * MIB, 64 * MIB), 63 * MIB, "goes on at byte")
    reads(failing, packed("d.gz", 64 * MIB + 1, 64 * MIB), 64 * MIB, "ends at byte")
  end)

  it("does not unpack to more than 1 GiB", function()
    local path = folder:path "e.gz" -- long enough for deflate to hold as much
    local content = "printf '\\0\\0\\10\\1\\100\\0\\0\\1'; head -c 2M /dev/urandom"
    assert(os.execute(("(%s) | gzip -c > '%s'"):format(content, path)))
    reads(failing, path, 2 * MIB, "1073741825 bytes, more than the limit of 1073741824")
  end)
end)

describe("a table", function()
  local csv = "local ok, t = pcall(dlua.data.csv, arg[1], {header = false, dtype = 'f64'}) print(ok and #t or t)"

  it("costs its text and its values", function()
    local rows = 2 * MIB
    local path, size = write("table.csv", {{"1,2,3,4\n", rows}})
    reads(csv, path, math.max(size, 8 * 4 * rows), tostring(rows))
    path, size = write("table.csv", {{"1.25,-3.5\n", rows}})
    reads(csv, path, size, tostring(rows))
    path, size = write("quotes.csv", {'"', {'""', 8 * MIB}, '"\n'})
    reads(csv, path, size, "1")
  end)

  it("has 32768 columns at most", function()
    local path, size = write("wide.csv", {{"1,", 32767}, "1\n"})
    reads(csv, path, size, "1")
    path = write("wider.csv", {{"1,", 32768}, "1\n"})
    reads(csv, path, 0, "more than 32768 cells")
    path, size = write("widest.csv", {{",", 16 * MIB}, "1\n"})
    reads(csv, path, size, "more than 32768 cells")
  end)
end)

describe("the other readers", function()
  it("take their file once or twice", function()
    local shape = "{'descr': '<f4', 'fortran_order': False, 'shape': (8388608,), }"
    local path, size = write("x.npy", {"\x93NUMPY\1\0", ("<I2"):pack(#shape), shape, {"\0\0\0\0", 8 * MIB}})
    reads(load, path, size, "read")
    path, size = write("test_batch.bin", {{("\1"):rep(3073), 10000}})
    reads("print(#dlua.io.cifar(arg[1]:match '(.*)/' or '.', false))", path, size, "10000")
  end)

  it("take a picture once", function()
    local path = folder:path "x.png"
    dlua.image.save(path, dlua.zeros({3, 4000, 4000}, {dtype = "u8"}))
    reads("print(dlua.image.load(arg[1]) and 'read')", path, 3 * 4000 * 4000, "read")
  end)

  it("refuse what is too large before there is room for it", function()
    local shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (4294967296,4294967296,2), }"
    local path = write("y.npy", {"\x93NUMPY\1\0", ("<I2"):pack(#shape), shape})
    reads(load, path, 0, "are not {4294967296,4294967296,2}")
    shape = "{'descr': '<f8', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }"
    path = write("z.npy", {"\x93NUMPY\1\0", ("<I2"):pack(#shape), shape, {"\0", 8}})
    reads(load, path, 8, "more than 8 dimensions")
  end)
end)
