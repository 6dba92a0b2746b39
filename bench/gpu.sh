#!/usr/bin/env bash
# On a machine with a GPU: `bash bench/gpu.sh` tests the kernels, lets compute-sanitizer watch them, and times them.
# Under 8 minutes; nothing is installed or fetched. Logs and gpu.jsonl go to $OUT (default bench/results).
# Without one, `bash bench/gpu.sh --toy` takes every step but compute-sanitizer's in Triton's interpreter, at toy sizes:
# a minute, and then nothing is kept unless $OUT is given or a step failed. $PYTHON is the interpreter (default python3).
set -uo pipefail
cd "$(dirname "$0")/.." || exit
toy=${1-}
if (($# > 1)) || [[ $toy != '' && $toy != --toy ]]; then
  echo "bench/gpu.sh must be given nothing or --toy, got $*" >&2
  exit 2
fi
export PYTHON=${PYTHON:-python3} PYTHONPATH=. PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-/tmp/alea-triton}
if [[ $toy ]]; then
  export TRITON_INTERPRET=1 CUDA_VISIBLE_DEVICES='' OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
  out=${OUT:-$(mktemp -d)}
elif "$PYTHON" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
  out=${OUT:-bench/results}
else
  echo "bench/gpu.sh needs a GPU, and $PYTHON's torch has none; bench/gpu.sh --toy runs in Triton's interpreter" >&2
  exit 1
fi
mkdir -p "$out"
status=0

# step NAME SECONDS COMMAND...: its output goes to NAME.log; the last lines are shown, then a failure.
step() {
  local name=$1 limit=$2 lines=${LINES_SHOWN:-6}
  shift 2
  printf '\n== %s, after %d s\n' "$name" "$SECONDS"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local ended=$?
  tail -n "$((ended && lines < 60 ? 60 : lines))" "$out/$name.log"
  if ((ended)); then
    printf '%s FAILED: exit status %d\n' "$name" "$ended"
    status=1
  fi
}

machine() {
  if command -v nvidia-smi >/dev/null; then nvidia-smi; fi
  "$PYTHON" -VV
  "$PYTHON" -m pip list 2>/dev/null | grep -iE '^(torch|triton|numpy|transformers|flashinfer|pytest|hypothesis)'
}

extension() {  # without it, the reference takes the place of the C++ backend
  "$PYTHON" -c 'import pybind11, setuptools' && "$PYTHON" setup.py -q build_ext --inplace
}

toy_extension() {  # unless it is compiled already
  "$PYTHON" -c 'from samplers import _native; print(_native.__file__)' || extension
}

tests() {  # PROCESSES WHICH [MARKED]
  "$PYTHON" -m pytest -p no:cacheprovider -n "$1" --dist worksteal --durations 5 -m "${3:-not exhaustive}" -k "$2" \
    tests/samplers/identity/test_draws.py tests/samplers/test_gpu.py tests/samplers/hf/test_gpu.py tests/samplers/vllm/test_gpu.py tests/bench/speed/test_gpu.py
}

watched() {  # each tensor has separate memory: a step beyond its end is seen
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    "$PYTHON" -m pytest -p no:cacheprovider -k "$2" tests/samplers/identity/test_draws.py tests/samplers/test_gpu.py
}

export -f machine extension toy_extension tests watched
step machine 30 bash -c machine
if [[ $toy ]]; then
  step extension 100 bash -c toy_extension
  step tests 220 bash -c 'tests 0 "(however_many and tied and (none or top_k)) or (test_gpu and not bench) or dry_run"'
  printf '\n== memcheck, racecheck: left out, the interpreter has nothing to watch\n'
  left=$((SECONDS < 35 ? 50 - SECONDS : 15))
else
  step extension 100 bash -c extension
  step tests 220 bash -c 'tests 8 "triton or however_many or test_gpu" "exhaustive or not exhaustive"'
  if command -v compute-sanitizer >/dev/null; then
    step memcheck 70 bash -c 'watched memcheck "(however_many and tied) or (golden_rows and 0)"'
    step racecheck 50 bash -c 'watched racecheck "however_many and tied and (none or chain)"'
  else
    printf '\n== memcheck, racecheck: compute-sanitizer is missing\n'
  fi
  left=$((SECONDS < 350 ? 440 - SECONDS : 90))
fi
LINES_SHOWN=90 step gpu $((left + 30)) "$PYTHON" -m bench.speed.gpu ${toy:+"$toy"} --out "$out" --seconds "$left"
if [[ $toy && -z ${OUT-} ]] && ! ((status)); then
  rm -r "$out"
else
  printf '\nlogs and records: %s\n' "$out"
fi
exit $status
