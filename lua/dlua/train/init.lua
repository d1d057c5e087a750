-- train - loops: fit with callbacks, evaluate, early stopping, a progress line. Each works without the others.
local strict = require "dlua.strict"

return strict("train", {
  fit = require "dlua.train.fit",
  evaluate = require "dlua.train.evaluate".evaluate,
  EarlyStopping = require "dlua.train.early_stopping",
  Progress = require "dlua.train.progress",
})
