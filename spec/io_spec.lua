-- Reading and writing pictures, tables and published data sets: right values, and clear errors for damaged files.
local dlua = require "dlua"
local helpers = require "spec.helpers"
local data, image, read = dlua.data, dlua.image, helpers.read

local fixtures = "spec/fixtures/png/"
local folder

local function path(name) return folder:path(name) end
local function write(name, bytes) return folder:write(name, bytes) end

local function message_of(fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  return tostring(message)
end

local function mentions(text, ...)
  assert.is_nil(text:find("\n", 1, true))
  for _, part in ipairs {...} do
    assert.is_truthy(text:find(part, 1, true), ("%q lacks %q"):format(text, part))
  end
end

local function flipped(bytes, position, bit)
  local changed = string.char(bytes:byte(position) ~ (1 << bit))
  return bytes:sub(1, position - 1) .. changed .. bytes:sub(position + 1)
end

setup(function() folder = helpers.folder() end)

teardown(function() folder:remove() end)

describe("image.load", function()
  local expected = {}
  for line in io.lines(fixtures .. "expected.txt") do
    local words = {}
    for word in line:gmatch "%S+" do words[#words + 1] = word end
    local values = {}
    for k = 5, #words do values[#values + 1] = math.tointeger(words[k]) end
    expected[words[1]] = {shape = {math.tointeger(words[2]), math.tointeger(words[3]), math.tointeger(words[4])},
      values = values}
  end

  for name, want in pairs(expected) do
    it("reads " .. name, function()
      local x = assert(image.load(fixtures .. name .. ".png"))
      assert.same(want.shape, x.shape)
      assert.equal(name:find "16" and "i32" or "u8", x.dtype)
      assert.same(want.values, x:reshape(-1):totable())
    end)
  end

  it("scales 16 bits where u8 is asked for", function()
    local x = assert(image.load(fixtures .. "grey16.png", {dtype = "u8"}))
    for k, value in ipairs(expected.grey16.values) do
      assert.equal(math.floor(value / 257 + 0.5), x:reshape(-1)[k]:item())
    end
  end)

  it("converts channels", function()
    local grey = image.load(fixtures .. "grey8.png")
    local colour = image.load(fixtures .. "grey8.png", {channels = 3})
    assert.same({3, 4, 5}, colour.shape)
    assert.same(grey[1]:totable(), colour[2]:totable())
    local rgb = image.load(fixtures .. "rgb8.png")
    local luma = image.load(fixtures .. "rgb8.png", {channels = 1})
    local f = rgb:to("f64")
    local want = (f[1] * 0.299 + f[2] * 0.587 + f[3] * 0.114):round()
    assert.is_true((luma[1]:to("f64") - want):abs():max():item() <= 1)
    assert.same({4, 4, 5}, image.load(fixtures .. "palette4.png", {channels = 4}).shape)
    assert.same({3, 4, 5}, image.load(fixtures .. "rgba8.png", {channels = 3}).shape)
  end)

  it("answers nil and a message for what it cannot read", function()
    local x, why = image.load(path "none.png")
    assert.is_nil(x)
    mentions(why, "none.png", "No such file")
    mentions(select(2, image.load(folder.root)), "folder")
    mentions(select(2, image.load(write("text.png", "hello, this is text"))), "text.png", "not a PNG")
  end)

  it("names the place where a file is cut, wherever that is", function()
    for _, name in ipairs {"rgb8", "grey16_interlaced", "palette4_transparent"} do
      local bytes = read(fixtures .. name .. ".png")
      for size = 0, #bytes - 1 do
        local x, why = image.load(write("cut.png", bytes:sub(1, size)))
        assert.is_nil(x, ("%s cut at %d was read"):format(name, size))
        mentions(why, "cut.png")
      end
    end
  end)

  it("gives an error or a picture for every flipped bit", function()
    for _, name in ipairs {"rgb8", "grey4_interlaced", "palette8_transparent"} do
      local bytes = read(fixtures .. name .. ".png")
      for position = 1, #bytes do
        for bit = 0, 7, 3 do
          local x, why = image.load(write("flip.png", flipped(bytes, position, bit)))
          assert.is_true(x ~= nil or type(why) == "string")
        end
      end
    end
  end)

  it("refuses sizes that the file cannot hold before it takes memory", function()
    local bytes = read(fixtures .. "rgb8.png")
    local function header(w, h)
      local body = "IHDR" .. (">I4I4"):pack(w, h) .. bytes:sub(25, 29)
      local crc = 0xFFFFFFFF
      for k = 1, #body do
        crc = crc ~ body:byte(k)
        for _ = 1, 8 do crc = (crc >> 1) ~ ((crc & 1) * 0xEDB88320) end
      end
      return bytes:sub(1, 12) .. body .. (">I4"):pack(crc ~ 0xFFFFFFFF) .. bytes:sub(34)
    end
    mentions(select(2, image.load(write("large.png", header(30000, 30000)))), "30000x30000", "limit")
    mentions(select(2, image.load(write("empty.png", header(9000, 9000)))), "9000x9000", "cannot hold")
  end)
end)

describe("image.save", function()
  it("keeps u8 and 16-bit values of 1 to 4 channels", function()
    for channels = 1, 4 do
      local x = dlua.randint(0, 255, {channels, 7, 5}):to("u8")
      image.save(path "x.png", x)
      assert.same(x:totable(), assert(image.load(path "x.png")):totable())
      local deep = dlua.randint(0, 65535, {channels, 3, 4}):to("i32")
      image.save(path "deep.png", deep)
      assert.same(deep:totable(), assert(image.load(path "deep.png")):totable())
    end
  end)

  it("takes floats from 0 to 1 and {h,w}", function()
    image.save(path "f.png", dlua.tensor {{0, 0.5}, {1, 2}})
    assert.same({{{0, 128}, {255, 255}}}, image.load(path "f.png"):totable())
  end)

  it("raises for what is no picture and for folders that do not exist", function()
    mentions(message_of(image.save, path "x.png", dlua.zeros(5, 2, 2)), "{5,2,2}")
    mentions(message_of(image.save, path "no/such/x.png", dlua.zeros(2, 2)), "no/such/x.png")
    mentions(message_of(image.save, path "x.png", dlua.full({1, 1, 1}, 70000, {dtype = "i32"})), "70000")
  end)
end)

describe("image.grid", function()
  it("puts pictures side by side with a border", function()
    local x = dlua.range(1, 3):to("f32"):reshape(3, 1, 1, 1)
    local grid = image.grid(x, {columns = 2, padding = 1, value = 9})
    assert.same({{{9, 9, 9, 9, 9}, {9, 1, 9, 2, 9}, {9, 9, 9, 9, 9}, {9, 3, 9, 9, 9}, {9, 9, 9, 9, 9}}},
      grid:totable())
  end)

  it("stays on the pictures' device and refuses columns that are none", function()
    local x = dlua.ones(2, 1, 1, 1)
    local grid = image.grid(x:to "mock", {padding = 0})
    assert.equal("mock", grid.device)
    assert.same({{{1, 1}}}, grid:cpu():totable())
    mentions(message_of(image.grid, x, {columns = 0}), "columns", "0")
    mentions(message_of(image.grid, x, {padding = -1}), "padding", "-1")
  end)
end)

describe("data.csv", function()
  it("reads numbers, quotes and named columns", function()
    local frame = data.csv(write("t.csv", 'name,"x, y",z\r\n"a ""b""",1.5,-2\r\nc,,3e2\r\n'))
    assert.same({"name", "x, y", "z"}, frame.names)
    assert.equal(2, #frame)
    assert.same({'a "b"', "c"}, frame.name)
    assert.same({-2, 300}, frame.z:totable())
    local x = frame:column "x, y"
    assert.equal(1.5, x[1]:item())
    assert.is_true(x[2]:item() ~= x[2]:item())
    assert.same({{-2}, {300}}, frame:tensor {"z"}:totable())
  end)

  it("names file and line of what is wrong", function()
    mentions(message_of(data.csv, write("a.csv", "a,b\n1,2\n3\n")), "a.csv:3", "1", "2")
    mentions(message_of(data.csv, write("b.csv", "a\n1\nx\n")), "b.csv:3", "column 1", '"x"')
    mentions(message_of(data.csv, write("c.csv", 'a\n"open\n')), "c.csv:2", "quote")
    mentions(message_of(data.csv, write("d.csv", "")), "d.csv", "no rows")
    mentions(message_of(data.csv, path "none.csv"), "none.csv")
    mentions(message_of(function() data.csv(write("e.csv", "alpha\n1\n")):column "alpa" end), "alpha")
  end)

  it("survives every cut", function()
    local text = '"a",b\n1,"x\ny"\n2,z\n'
    for size = 0, #text do pcall(data.csv, write("cut.csv", text:sub(1, size))) end
  end)
end)

describe("idx files", function()
  local function idx(code, sizes, body)
    return ("\0\0%c%c"):format(code, #sizes) .. (">" .. ("I4"):rep(#sizes)):pack(table.unpack(sizes)) .. body
  end

  it("come back as tensors", function()
    assert.same({{1, 2, 3}, {4, 5, 6}}, data.idx(write("u8", idx(8, {2, 3}, "\1\2\3\4\5\6"))):totable())
    assert.same({1.5, -2}, data.idx(write("f4", idx(13, {2}, (">ff"):pack(1.5, -2)))):totable())
  end)

  it("are held against their size", function()
    mentions(message_of(data.idx, write("short", idx(8, {2, 3}, "\1\2\3"))), "short", "byte 15", "byte 18")
    mentions(message_of(data.idx, write("long", idx(8, {2}, "\1\2\3"))), "long", "byte 10")
    mentions(message_of(data.idx, write("huge", idx(8, {0xFFFFFFFF, 0xFFFFFFFF, 9}, "\1"))), "huge")
    mentions(message_of(data.idx, write("none", idx(8, {0, 0xFFFFFFFF, 0xFFFFFFFF, 9}, ""))), "none", "cannot hold")
    mentions(message_of(data.idx, write("none2", idx(8, {0xFFFFFFFF, 0xFFFFFFFF, 9, 0}, ""))), "none2", "cannot hold")
    mentions(message_of(data.idx, write("kind", idx(7, {1}, "\1"))), "0x07")
    mentions(message_of(data.idx, write("text", "hello world")), "text", "not an idx")
  end)

  it("are read packed, and a damaged package is an error", function()
    local packed = read "examples/data/mnist-small/t10k-labels-idx1-ubyte.gz"
    local labels = data.idx "examples/data/mnist-small/t10k-labels-idx1-ubyte.gz"
    assert.same({500}, labels.shape)
    for size = 0, #packed - 1, 7 do
      mentions(message_of(data.idx, write("cut.gz", packed:sub(1, size))), "cut.gz")
    end
    for position = 11, #packed, 5 do
      local ok, x = pcall(data.idx, write("flip.gz", flipped(packed, position, position % 8)))
      assert.is_true(not ok or x:eq(labels):all():item())
    end
  end)
end)

describe("cifar10 files", function()
  local function set_up(record)
    folder:make "cifar-10-batches-bin"
    for k = 1, 5 do write(("cifar-10-batches-bin/data_batch_%d.bin"):format(k), record) end
    write("cifar-10-batches-bin/test_batch.bin", record)
  end
  local open = function() return dlua.io.cifar(path "cifar-10-batches-bin", true) end

  it("are records of a label and three planes", function()
    set_up("\3" .. ("\1"):rep(1024) .. ("\2"):rep(1024) .. ("\5"):rep(1024))
    local x, y = dlua.io.get(open(), 5)
    assert.equal(4, y)
    assert.same({1, 2, 5}, {x[{1, 1, 1}]:item(), x[{2, 32, 32}]:item(), x[{3, 1, 32}]:item()})
  end)

  it("name file and byte of what is wrong", function()
    set_up(("\3"):rep(3072))
    mentions(message_of(open), "data_batch_1.bin", "3072", "3073")
    set_up("\3" .. ("\1"):rep(3072) .. "\11" .. ("\1"):rep(3072))
    mentions(message_of(open), "data_batch_1.bin", "label 11", "3073")
    os.remove(path "cifar-10-batches-bin/data_batch_3.bin")
    set_up("")
    mentions(message_of(open), "data_batch_1.bin")
  end)
end)
