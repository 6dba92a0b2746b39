#!/usr/bin/env bash
# On a machine with a GPU: `bash bench/gpu.sh` tests the kernels, lets compute-sanitizer watch them, and times them.
# Under 8 minutes; nothing is installed or fetched. Logs and gpu.jsonl go to $OUT (default bench/results).
set -uo pipefail
cd "$(dirname "$0")/.."
out=${OUT:-bench/results}
mkdir -p "$out"
export PYTHONPATH=. PYTHONUNBUFFERED=1 TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-/tmp/alea-triton}
status=0

# step NAME SECONDS COMMAND...: what it prints goes to NAME.log; its end is shown, a failure told at the end.
step() {
  local name=$1 limit=$2 lines=${LINES_SHOWN:-6}
  shift 2
  printf '\n== %s, after %d s\n' "$name" "$SECONDS"
  timeout "$limit" "$@" >"$out/$name.log" 2>&1
  local ended=$?
  tail -n "$lines" "$out/$name.log"
  if ((ended)); then
    printf '%s FAILED: exit status %d\n' "$name" "$ended"
    status=1
  fi
}

machine() {
  nvidia-smi
  python3 -VV
  python3 -m pip list 2>/dev/null | grep -iE '^(torch|triton|numpy|transformers|flashinfer|pytest|hypothesis)'
}

extension() {  # without it, the reference stands in for the C++ backend
  python3 -c 'import pybind11, setuptools' && python3 setup.py -q build_ext --inplace
}

tests() {
  python3 -m pytest -p no:cacheprovider -n 8 --dist worksteal --durations 5 -k 'triton or however_many or test_gpu' \
    tests/samplers/test_identity.py tests/samplers/test_gpu.py tests/samplers/hf/test_gpu.py tests/bench/test_gpu.py
}

watched() {  # each tensor in memory of its own, so that a step beyond its end is seen
  PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --tool "$1" --error-exitcode 9 \
    python3 -m pytest -p no:cacheprovider -k "$2" tests/samplers/test_identity.py tests/samplers/test_gpu.py
}

export -f machine extension tests watched
step machine 30 bash -c machine
step extension 100 bash -c extension
step tests 220 bash -c tests
if command -v compute-sanitizer >/dev/null; then
  step memcheck 70 bash -c 'watched memcheck "(however_many and tied) or (golden_rows and 0)"'
  step racecheck 50 bash -c 'watched racecheck "however_many and tied and (none or chain)"'
else
  printf '\n== memcheck, racecheck: there is no compute-sanitizer\n'
fi
left=$((SECONDS < 350 ? 440 - SECONDS : 90))
LINES_SHOWN=90 step gpu $((left + 30)) python3 -m bench.gpu --out "$out" --seconds "$left"
exit $status
