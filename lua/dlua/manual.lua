-- manual.lua - help texts of the functions that C makes and that are no ops: ops describe themselves.
return {
  tensor = [[dlua.tensor(values, {dtype = "f32", device = "cpu", requires_grad = false})
  A tensor from a number, a boolean or nested tables of them. Booleans give bool, everything else f32.
  dlua.tensor({{1, 2}, {3, 4}}, {dtype = "i64"})]],
  is_tensor = "dlua.is_tensor(value)\n  Is the value a tensor?",
  item = "x:item()\n  The number (or boolean) of a tensor with one element.",
  totable = "x:totable()\n  The elements as nested Lua tables; a number for a 0-d tensor.",
  size = "x:size([dim])\n  All sizes as results, or one. x.shape is the same as a table.",
  stride = "x:stride()\n  The distances between neighbours of each dimension, in elements.",
  numel = "x:numel()\n  The number of elements.",
  is_contiguous = "x:is_contiguous()\n  Do the elements lie row by row without gaps?",
  to = [[x:to(dtype | device | tensor | {dtype = …, device = …})
  x with another dtype or on another device; x itself when nothing changes. Gradients flow back through it.]],
  detach = "x:detach()\n  The same elements without history.",
  requires_grad_ = "x:requires_grad_(on = true)\n  Makes a leaf collect a gradient, or not; gives x.",
  alias = "x:alias()\n  Another box of the same tensor, so that releasing one leaves the other.",
  release = [[x:release()
  Lets go of the tensor now instead of when Lua collects it. `local x <close>` does so too.]],
  backward = [[x:backward([gradient], {retain_graph = false, create_graph = false})
  Adds the gradients of x by every leaf to the leaf's grad. x has one element unless a gradient is given.]],
  grad = [[dlua.grad(y, x, {grad_outputs, retain_graph, create_graph, allow_unused})
  The gradient of y by x without touching x.grad; lists of tensors give several results.]],
  no_grad = "dlua.no_grad(fn, …)\n  Calls fn without recording and gives its results.",
  enable_grad = "dlua.enable_grad(fn, …)\n  Calls fn with recording, inside no_grad.",
  autocast = [[dlua.autocast("bf16" | "f16" | "f32", fn, …)
  Calls fn in mixed precision and gives its results: products and convolutions of f32 tensors run in the named dtype,
  sums, exponentials, norms and losses in f32; parameters stay f32 and so do their gradients. op_info(name).autocast
  says how an op runs. Call backward outside; with f16 scale the loss, see dlua.GradScaler.
  local loss = dlua.autocast("bf16", function() return criterion(net(x), y) end)]],
  autocast_dtype = "dlua.autocast_dtype()\n  What autocast casts to at the moment, or nil.",
  is_grad_enabled = "dlua.is_grad_enabled()\n  Are calls recorded at the moment?",
  Function = [[dlua.Function{forward = function(ctx, x, …) … end, backward = function(ctx, g, …) … end}
  A function with a gradient of its own; ctx carries from forward to backward what is needed there.]],
  scope = [[local s <close> = dlua.scope()
  Releases every tensor made in the block when it ends, but parameters and what s:keep(…) names.]],
  lasting = "dlua.lasting(x, …)\n  Takes tensors, or tables of them, out of all open scopes; gives them back.",
  tidy = "dlua.tidy(fn, …)\n  Calls fn and releases every tensor made in it but its results.",
  memory = [[dlua.memory([device])
  A table of bytes live, peak, cached and of Lua's own (lua), and of blocks handed out (allocations) and of those that
  came from the system or device (system). Devices have largest too, the largest cached block in one piece, and
  segments, the pieces of memory that all of it lies in.]],
  reset_peak_memory = "dlua.reset_peak_memory([device])\n  Starts the count of the highest use anew.",
  empty_cache = "dlua.empty_cache([device])\n  Gives memory kept for reuse back to the system.",
  synchronize = "dlua.synchronize([device])\n  Waits until the device is done.",
  device = 'dlua.device("auto" | name)\n  The name of a device that is there; auto is cuda where it works, else cpu.',
  ["cuda.available"] = "dlua.cuda.available()\n  true, or false and the reason.",
  ["cuda.devices"] = [[dlua.cuda.devices()
  A list of tables: device (its name here), name, memory and free (bytes), capability, multiprocessors, libraries.]],
  ["cuda.memory"] = "dlua.cuda.memory([device])\n  As dlua.memory, of a cuda device.",
  ["cuda.tf32"] = [[dlua.cuda.tf32([on])
  Whether f32 products and convolutions may round their inputs to TF32, with 10 bits of mantissa,
  which is faster; on sets it. Off from the start. Gives what it was.]],
  ["cuda.reset_peak_memory"] = "dlua.cuda.reset_peak_memory([device])\n  Starts the count of the highest use anew.",
  ["cuda.synchronize"] = [[dlua.cuda.synchronize([device])
  Waits until the device is done, and raises what went wrong on it meanwhile. Reading a number waits, too.]],
  ["cuda.empty_cache"] = "dlua.cuda.empty_cache([device])\n  Gives the device's unused memory back; waits for it.",
  send = [[dlua.send(x)
  Starts bringing the one element of a tensor on a device to the host, without waiting; gives a ticket.]],
  receive = "dlua.receive(ticket)\n  The number that was sent, or nil while it is on its way.",
  threads = "dlua.threads([n])\n  The number of threads that kernels use; n sets it. Gives what it was.",
  seed = "dlua.seed(n)\n  Starts the random generator at n.",
  rng_state = "dlua.rng_state()\n  The generator's state, for dlua.set_rng_state.",
  set_rng_state = "dlua.set_rng_state(state)\n  Takes the generator back to a state.",
  random_key = "dlua.random_key()\n  A fresh 64-bit integer from the generator.",
  time = "dlua.time()\n  The wall clock in seconds, counted from some moment in the past.",
  winograd = [[dlua.winograd([on])
  Whether 3×3 convolutions may use Winograd's algorithm; on sets it. Gives what it was.]],
  autotune = [[dlua.autotune([on])
  Whether algorithms are chosen by timing each shape once; on sets it. Gives what it was.]],
  save = [[dlua.save(file, {name = tensor, …}, {metadata = {…}})
  Writes tensors to a safetensors (or npy) file; raises when that fails.]],
  load = [[dlua.load(file)
  The tensors of a file by name and its metadata; nil and a message when it cannot be read.]],
  copy_ = [[x:copy_(y)
  Writes y's elements into x, which keeps its dtype and device; shapes are equal. Not recorded.]],

  -- For modules written in Lua.
  fail = "dlua.fail(format, …)\n  Raises a message with the layer's path and the script's line, as ops do.",
  nearest = "dlua.nearest(word, list)\n  The entry of list that is spelt most like word, or nil.",
  op_info = [[dlua.op_info([name])
  A table that describes an op: name, sig, doc, params, results; without a name all names.]],
  assign = "dlua.assign(x, y)\n  What x:copy_(y) does.",
  set_data = "dlua.set_data(x, y)\n  x takes over y's elements, dtype, shape and device and stays the same tensor.",
  set_module_call = [[dlua.set_module_call(fn)
  Frames of fn, whose first local is a module, make the layer's path in messages.]],
  set_layer_path = "dlua.set_layer_path(fn)\n  fn(modules) names the path of modules, outermost first.",
  is_dtype = "dlua.is_dtype(word)\n  Is word the name of a dtype?",
  is_terminal = "dlua.is_terminal()\n  Does output go to a terminal?",
  optim_step = "dlua.optim_step(…)\n  One fused step of an optimiser; see dlua.optim.",
  clear_gradients = "dlua.clear_gradients(parameters)\n  Sets every grad to nil.",
  find_bad_gradient = [[dlua.find_bad_gradient(parameters)
  The position of the first gradient that is not finite, or nil.]],
  unscale = [[dlua.unscale(parameters, scale, found)
  Divides gradients by a scale and raises found where one is not finite; see dlua.GradScaler.]],
  clip_grad_norm = "dlua.clip_grad_norm(parameters, most)\n  Scales gradients to a norm; see nn.clip_grad_norm_.",
}
