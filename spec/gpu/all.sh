#!/usr/bin/env bash
# Everything that wants a GPU, in under ten minutes: the machine, the specs, NVIDIA's compute-sanitizer, the examples
# and the benchmark, beside PyTorch where there is one. One log, one line per stage; without compute-sanitizer that stage
# is left out. From an unpacked bundle or a checkout:
#
#   spec/gpu/all.sh [LOG]        LOG: gpu.log
#
# Environment: DLUA, the program; PYTHON, one that has torch; DLUA_GPU_OPS, the ops whose parity to check (all);
# DLUA_GPU_SPECS, the other specs to run (all); DLUA_GPU_ROWS, rows of the benchmark (those of a GPU); DLUA_GPU_ROUNDS,
# its rounds (1); DLUA_GPU_PATIENCE, what every time limit is multiplied with (1).
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2

LOG=${1:-gpu.log}
PYTHON=${PYTHON:-python3}
export ROUNDS=${DLUA_GPU_ROUNDS:-1} DLUA
if [[ -z ${DLUA:-} ]]; then
  if [[ -x ./dlua ]]; then DLUA=$PWD/dlua; else DLUA=$PWD/build/dlua; fi
fi
if [[ -z ${DLUA_DATA:-} && -d data ]]; then export DLUA_DATA=$PWD/data; fi
WORK=$(mktemp -d) || exit 2
export WORK
trap 'rm -rf "$WORK"' EXIT
: >"$LOG" || exit 2

summary=() failed=0

note() {
  local line
  printf -v line '%-32s %-8s %s' "$@"
  summary+=("$line")
  printf '%s\n' "$line"
}

# stage NAME SECONDS FUNCTION…: its output into the log, one line with the result. Out of time is a failure; everything
# that the stage has started ends with it.
stage() {
  local name=$1 limit=$(($2 * ${DLUA_GPU_PATIENCE:-1})) start=$SECONDS status=0 result=pass why=
  shift 2
  printf '\n==== %s\n' "$name" >>"$LOG"
  timeout -k 5 "$limit" bash -uo pipefail -c '"$@"' stage "$@" >>"$LOG" 2>&1 </dev/null || status=$?
  if ((status != 0)); then
    result=FAIL failed=$((failed + 1))
    if ((status == 124 || status == 137)); then why="  (out of time: $limit s)"; fi
  fi
  note "$name" "$result" "$((SECONDS - start)) s$why"
}

# ---------------------------------------------------------------- stages

machine() {
  date -u
  uname -a
  grep -m 1 '^model name' /proc/cpuinfo
  echo "$(nproc) CPUs, load $(cut -d' ' -f1-3 /proc/loadavg)"
  nvidia-smi || echo "no nvidia-smi"
  "$DLUA" -v
  "$DLUA" -e '
    local cuda = require "dlua".cuda
    local available, reason = cuda.available()
    if not available then print(reason) os.exit(1) end
    for _, d in ipairs(cuda.devices()) do
      print(("%s: %s, capability %s, %d multiprocessors, %.1f of %.1f GiB free, %s"):format(d.device, d.name,
        d.capability, d.multiprocessors, d.free / 2 ^ 30, d.memory / 2 ^ 30, d.libraries))
    end'
}

specs() { "$DLUA" test --output plainTerminal "$@"; }

# Where there are CPUs for it, the ops are shared out by their first letter: Lua's side of comparing is the slow one.
parity() {
  local parts=("[ab].*" "c.*" "[d-h].*" "[i-l].*" "[m-p].*" "[qrt-z].*" "s.*") part status=0
  if [[ -n ${DLUA_GPU_OPS:-} ]] || (($(nproc) < ${#parts[@]})); then
    specs spec/gpu/parity_spec.lua
    return
  fi
  local children=()
  for part in "${!parts[@]}"; do
    DLUA_GPU_OPS=${parts[part]} OMP_NUM_THREADS=1 specs spec/gpu/parity_spec.lua >"$WORK/parity.$part" 2>&1 &
    children+=($!)
  done
  for part in "${!parts[@]}"; do
    wait "${children[part]}" || status=1
    cat "$WORK/parity.$part"
  done
  return $status
}

# Each block of memory is the device's own (DLUA_CACHE=0), or an access beyond its end would hit a neighbour.
sanitized() {
  local tool=$1
  shift
  DLUA_CACHE=0 DLUA_GPU_OPS="$*" "$SANITIZER" --tool "$tool" --target-processes all --error-exitcode 9 \
    "$DLUA" test --output plainTerminal --filter "in f32" --filter gradients spec/gpu/parity_spec.lua
}

# A row that failed is a line that says so, and the run goes on.
benchmark() {
  "$DLUA" spec/bench/run.lua --device cuda --dtype "$1" --peer "$PEER" --seconds 1 --rounds "$ROUNDS" "${@:2}" |
    tee "$WORK/table"
  local status=$?
  if grep -q 'failed:' "$WORK/table"; then return 1; fi
  return $status
}

example() { "$DLUA" "$1" --device cuda --quick; }

export -f machine specs parity sanitized benchmark example

# An op of every family of kernels.
SLICE="add leaky_relu gt clamp sum var max softmax cross_entropy mse_loss cumsum sort topk index_select scatter_add
  index_add gather cat flip pad where masked_fill masked_select tril matmul linear linear_weight_grad relu_linear_grad
  conv2d max_pool2d avg_pool2d batch_norm dropout dropout_grad augment randn range one_hot"
SUMS="sum mean var max argmax norm logsumexp softmax log_softmax cross_entropy cumsum sort topk masked_select
  scatter_add index_add batch_norm"
PRODUCTS="mlp-mnist cifar-1 cifar-2 cifar-3 gemm-2048 gemm-8192 conv-forward conv-input-grad conv-weight-grad"

find_sanitizer() {
  local path
  for path in compute-sanitizer /usr/local/cuda/bin/compute-sanitizer \
    /usr/local/cuda/compute-sanitizer/compute-sanitizer; do
    if command -v "$path"; then return; fi
  done
  return 1
}

# ---------------------------------------------------------------- all of it

stage "machine" 15 machine
if ((failed > 0)); then
  tail -n 3 "$LOG"
  exit 1
fi

stage "parity of every op" 150 parity
others=(spec/gpu/*_spec.lua)
others=("${others[@]/spec\/gpu\/parity_spec.lua/}" spec/augment_spec.lua)
# shellcheck disable=SC2086,SC2068 # words, the empty one left out
stage "other specs" 90 specs ${DLUA_GPU_SPECS:-${others[@]}}

if SANITIZER=$(find_sanitizer); then
  export SANITIZER
  # shellcheck disable=SC2086
  stage "compute-sanitizer memcheck" 70 sanitized memcheck $SLICE
  # shellcheck disable=SC2086
  stage "compute-sanitizer racecheck" 40 sanitized racecheck $SUMS
else
  note "compute-sanitizer" skipped "there is none"
fi

for script in examples/*.lua; do stage "example $(basename "$script")" 15 example "$script"; done

against="beside PyTorch"
export PEER=$PYTHON
if ! "$PYTHON" -c 'import torch; torch.zeros(1).cuda()' >/dev/null 2>&1; then
  PEER='' against="alone, $PYTHON has no torch that sees a GPU"
fi
# shellcheck disable=SC2086
{
  stage "benchmark f32" 110 benchmark f32 ${DLUA_GPU_ROWS:-}
  stage "benchmark bf16" 70 benchmark bf16 ${DLUA_GPU_ROWS:-$PRODUCTS}
}
note "benchmark" "" "$against"

{
  printf '\n==== summary\n'
  printf '%s\n' "${summary[@]}"
  echo "$SECONDS s in all, $failed failed"
} | tee -a "$LOG" | tail -n 1
((failed == 0))
