-- dlua.save and dlua.load: what goes in comes out, and nothing damaged comes out.
local dlua = require "dlua"
local helpers = require "spec.helpers"

local folder

local function path(name) return folder:path(name) end
local function write(name, bytes) return folder:write(name, bytes) end
local function read(name) return folder:read(name) end

-- A file with this header and data.
local function made(header, body)
  return write("made.safetensors", ("<I8"):pack(#header) .. header .. (body or ""))
end

local function refused(file, ...)
  local x, why = dlua.load(file)
  assert.is_nil(x)
  assert.is_nil(why:find("\n", 1, true))
  for _, part in ipairs {...} do
    assert.is_truthy(why:find(part, 1, true), ("%q lacks %q"):format(why, part))
  end
end

local function same_tensors(want, got)
  for name, x in pairs(want) do
    assert.is_truthy(got[name], name .. " is missing")
    assert.equal(x.dtype, got[name].dtype)
    assert.same(x.shape, got[name].shape)
    assert.same(x:to("f64"):totable(), got[name]:to("f64"):totable())
  end
  for name in pairs(got) do assert.is_truthy(want[name], name .. " is new") end
end

setup(function() folder = helpers.folder() end)

teardown(function() folder:remove() end)

describe("safetensors", function()
  local function some()
    return {
      f32 = dlua.randn(3, 4), f64 = dlua.randn({2}, {dtype = "f64"}), bf16 = dlua.randn(5):to("bf16"),
      f16 = dlua.randn(2, 2):to("f16"), i64 = dlua.randint(-9, 9, {7}), i32 = dlua.randint(0, 9, {3}):to("i32"),
      u8 = dlua.randint(0, 255, {2, 3}):to("u8"), bool = dlua.randn(4):gt(0), empty = dlua.zeros(0, 3),
      ["a.b \"ü\""] = dlua.tensor(2.5),
    }
  end

  it("writes metadata in the order of its keys", function()
    dlua.save(path "sorted.safetensors", {x = dlua.ones(1)},
      {metadata = {delta = "4", alpha = "1", echo = "5", beta = "2", gamma = "3"}})
    local file = assert(io.open(path "sorted.safetensors", "rb"))
    local text = file:read "a"
    file:close()
    assert.is_truthy(text:find('"alpha":"1","beta":"2","delta":"4","echo":"5","gamma":"3"', 1, true), text)
    for _, metadata in ipairs {{["a\0b"] = "1"}, {a = "1\0"}} do
      local ok, message = pcall(dlua.save, path "zero.safetensors", {x = dlua.ones(1)}, {metadata = metadata})
      assert.is_false(ok)
      assert.matches("has a zero byte", message)
    end
  end)

  it("keeps every dtype, shape, name and the metadata", function()
    local tensors = some()
    dlua.save(path "all.safetensors", tensors, {metadata = {author = "me", ["line\n"] = "a\tb\"\\"}})
    local back, metadata = dlua.load(path "all.safetensors")
    same_tensors(tensors, back)
    assert.same({author = "me", ["line\n"] = "a\tb\"\\"}, metadata)
  end)

  it("writes the same bytes for the same tensors", function()
    local tensors = some()
    dlua.save(path "one.safetensors", tensors)
    dlua.save(path "two.safetensors", tensors)
    assert.equal(read "one.safetensors", read "two.safetensors")
  end)

  it("writes views as what they show, and tied tensors once", function()
    local x = dlua.range(1, 6):to("f32"):reshape(2, 3)
    dlua.save(path "view.safetensors", {t = x:t(), row = x[2], tied = x, x = x})
    local back = dlua.load(path "view.safetensors")
    assert.same({{1, 4}, {2, 5}, {3, 6}}, back.t:totable())
    assert.same({4, 5, 6}, back.row:totable())
    back.x:add_(1)
    assert.same(back.x:totable(), back.tied:totable())
    local size = ("<I8"):unpack(read "view.safetensors")
    assert.equal(8 + size + 4 * (6 + 6 + 3), #read "view.safetensors")
  end)

  it("reads what other writers make", function()
    local file = made('{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"__metadata__":{"k":"v"}}  ',
      ("<ff"):pack(1, -2))
    local back, metadata = dlua.load(file)
    assert.same({1, -2}, back.w:totable())
    assert.same({k = "v"}, metadata)
    assert.same({}, (dlua.load(made "{}")))
  end)

  it("refuses headers that are not strictly valid", function()
    local function one(fields, body) return made('{"w":{' .. fields .. "}}", body) end
    refused(one('"dtype":"F32","shape":[2],"data_offsets":[0,4]', "1234"), "w", "{2}", "4 bytes")
    refused(one('"dtype":"F32","shape":[1],"data_offsets":[4,8]', "12345678"), "byte 4", "0 was expected")
    refused(one('"dtype":"F32","shape":[1],"data_offsets":[0,4]', "12345678"), "4 bytes", "8")
    refused(one('"dtype":"F32","shape":[1],"data_offsets":[0,4]', "12"), "4", "2")
    refused(one('"dtype":"F32","shape":[0,1099511627776,1099511627776],"data_offsets":[0,0]'), "made", "w")
    refused(one('"dtype":"F\\n8","shape":[1],"data_offsets":[0,1]', "1"), "F?8")
    refused(one('"dtype":"F8","shape":[1],"data_offsets":[0,1]', "1"), "F8")
    refused(one('"dtype":"F32","shape":[1]', "1234"), "data_offsets")
    refused(one('"dtype":"F32","shape":[-1],"data_offsets":[0,4]', "1234"), "size")
    refused(one('"dtype":"F32","shape":[1.5],"data_offsets":[0,4]', "1234"), "made.safetensors")
    refused(one('"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,4]', "1234"), "w")
    refused(one('"dtype":"F32","shape":[1,1,1,1,1,1,1,1,1],"data_offsets":[0,4]', "1234"), "8 dimensions")
    refused(one('"dtype":"BOOL","shape":[2],"data_offsets":[0,2]', "\1\2"), "boolean")
    refused(made('{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],'
      .. '"data_offsets":[1,2]}}', "12"), "a appears twice")
    refused(made('{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],'
      .. '"data_offsets":[1,3]}}', "123"), "b", "2 was expected")
    refused(made "{} x", "spaces")
    refused(made '{"\\ud800":1}', "name")
    refused(write("short.safetensors", "1234"), "4 bytes")
    refused(write("huge.safetensors", ("<I8"):pack(1 << 60) .. "{}"), "header")
    refused(path "none.safetensors", "none.safetensors", "No such file")
  end)

  it("notices every flipped bit and every cut", function()
    dlua.save(path "whole.safetensors", {w = dlua.randn(3), b = dlua.ones(2):gt(0)}, {metadata = {step = "7"}})
    local bytes = read "whole.safetensors"
    for position = 1, #bytes do
      for bit = 0, 7 do
        local changed = string.char(bytes:byte(position) ~ (1 << bit))
        local x = dlua.load(write("flip.safetensors", bytes:sub(1, position - 1) .. changed .. bytes:sub(position + 1)))
        assert.is_nil(x, ("bit %d of byte %d went unnoticed"):format(bit, position))
      end
    end
    for size = 0, #bytes - 1 do refused(write("cut.safetensors", bytes:sub(1, size)), "cut.safetensors") end
    refused(write("long.safetensors", bytes .. "\0"), "long.safetensors")
  end)

  it("leaves the old file alone when it cannot write, and no other file", function()
    dlua.save(path "kept.safetensors", {x = dlua.ones(2)})
    assert.is_false(pcall(dlua.save, path "kept.safetensors", {x = 1}))
    assert.is_false(pcall(dlua.save, path "kept.safetensors", {x = dlua.ones(1)}, {metadata = {["dlua.x"] = "1"}}))
    assert.is_false(pcall(dlua.save, path "kept.safetensors", {["\255"] = dlua.ones(1)}))
    assert.same({1, 1}, dlua.load(path "kept.safetensors").x:totable())
    local listing = io.popen("ls -a '" .. folder.root .. "'")
    assert.is_nil(listing:read "a":find(".part", 1, true))
    listing:close()
    assert.is_false(pcall(dlua.save, path "no/such/folder.safetensors", {x = dlua.ones(1)}))
  end)

  it("says what cannot be saved or loaded", function()
    for _, case in ipairs {
      {dlua.save, "x.txt", {}, ".safetensors"}, {dlua.save, path "x.safetensors", {1}, "names must be strings"},
      {dlua.save, path "x.safetensors", {a = "b"}, "a must be a tensor"}, {dlua.load, "x.bin", nil, ".npy"},
      {dlua.save, path "x.safetensors", dlua.ones(1), "table"},
    } do
      local ok, message = pcall(case[1], case[2], case[3])
      assert.is_false(ok)
      assert.is_truthy(tostring(message):find(case[4], 1, true), message)
    end
  end)
end)

describe("npy", function()
  it("keeps every dtype it has and every shape", function()
    for _, dtype in ipairs {"f32", "f64", "f16", "i64", "i32", "u8", "bool"} do
      for _, shape in ipairs {{3, 2}, {4}, {0, 2}, {}} do
        local x = dlua.zeros(shape):add_(1):to(dtype)
        dlua.save(path "x.npy", x)
        local back = assert(dlua.load(path "x.npy"))
        assert.equal(dtype, back.dtype)
        assert.same(x.shape, back.shape)
        assert.same(x:totable(), back:totable())
      end
    end
  end)

  local function npy(header, body)
    return write("made.npy", "\x93NUMPY\1\0" .. ("<I2"):pack(#header) .. header .. body)
  end

  it("reads column order and the other byte order", function()
    local values = (">i4i4i4i4"):pack(1, 2, 3, 4)
    local x = dlua.load(npy("{'descr': '>i4', 'fortran_order': True, 'shape': (2, 2), }\n", values))
    assert.same({{1, 3}, {2, 4}}, x:totable())
  end)

  it("refuses what is damaged", function()
    local good = "{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }\n"
    refused(npy(good, "1234"), "4 bytes", "{2}")
    refused(npy(good:gsub("<f4", "|O"), "12345678"), "|O")
    refused(npy("{'shape': (2,)}", "12345678"), "missing")
    refused(npy(good:gsub("%(2,%)", "(99999999999999999999,)"), "1"), "made.npy")
    refused(write("text.npy", "this is no array at all"), "text.npy")
    dlua.save(path "whole.npy", dlua.randn(3))
    local bytes = read "whole.npy"
    for size = 0, #bytes - 1 do refused(write("cut.npy", bytes:sub(1, size)), "cut.npy") end
    for position = 1, #bytes do
      dlua.load(write("flip.npy", bytes:sub(1, position - 1) .. string.char(bytes:byte(position) ~ 4)
        .. bytes:sub(position + 1)))
    end
  end)
end)
