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
  release = "x:release()\n  Lets go of the tensor now instead of when Lua collects it. `local x <close>` does so too.",
  backward = [[x:backward([gradient], {retain_graph = false, create_graph = false})
  Adds the gradients of x by every leaf to the leaf's grad. x has one element unless a gradient is given.]],
  grad = [[dlua.grad(y, x, {grad_outputs, retain_graph, create_graph, allow_unused})
  The gradient of y by x without touching x.grad; lists of tensors give several results.]],
  no_grad = "dlua.no_grad(fn, …)\n  Calls fn without recording and gives its results.",
  enable_grad = "dlua.enable_grad(fn, …)\n  Calls fn with recording, inside no_grad.",
  is_grad_enabled = "dlua.is_grad_enabled()\n  Are calls recorded at the moment?",
  Function = [[dlua.Function{forward = function(ctx, x, …) … end, backward = function(ctx, g, …) … end}
  A function with a gradient of its own; ctx carries from forward to backward what is needed there.]],
  scope = [[local s <close> = dlua.scope()
  Releases every tensor made in the block when it ends, but parameters and what s:keep(…) names.]],
  lasting = "dlua.lasting(x, …)\n  Takes tensors, or tables of them, out of all open scopes; gives them back.",
  tidy = "dlua.tidy(fn, …)\n  Calls fn and releases every tensor made in it but its results.",
  memory = [[dlua.memory([device])
  A table of bytes live, peak, cached and of Lua's own (lua), and of blocks handed out (allocations, system).]],
  reset_peak_memory = "dlua.reset_peak_memory([device])\n  Starts the count of the highest use anew.",
  empty_cache = "dlua.empty_cache([device])\n  Gives memory kept for reuse back to the system.",
  synchronize = "dlua.synchronize([device])\n  Waits until the device is done.",
  device = 'dlua.device("auto" | name)\n  The name of a device that is there; auto is cuda where it works, else cpu.',
  ["cuda.available"] = "dlua.cuda.available()\n  true, or false and the reason.",
  threads = "dlua.threads([n])\n  The number of threads that kernels use, after setting it.",
  seed = "dlua.seed(n)\n  Starts the random generator at n.",
  rng_state = "dlua.rng_state()\n  The generator's state, for dlua.set_rng_state.",
  set_rng_state = "dlua.set_rng_state(state)\n  Takes the generator back to a state.",
  random_key = "dlua.random_key()\n  A fresh 64-bit integer from the generator.",
  time = "dlua.time()\n  The wall clock in seconds, counted from some moment in the past.",
  winograd = [[dlua.winograd([on])
  Whether 3×3 convolutions may use Winograd's algorithm; on sets it. Gives what it was.]],
  autotune = [[dlua.autotune([on])
  Whether algorithms are chosen by timing each shape once; on sets it. Gives what it was.]],
}
