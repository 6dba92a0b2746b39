"""Oracle: one process. Two draw every token, and they must agree."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import tensor_parallel
from engines import CHAIN, LONG, alea_ids, new_engine

CORES = {"VLLM_CPU_OMP_THREADS_BIND": "0|1"}  # one for each process


def test_two_processes():
    command = [sys.executable, tensor_parallel.__file__]
    done = subprocess.run(command, env=os.environ | CORES, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found == tensor_parallel.texts(new_engine())
    assert found[:2] == [alea_ids(tensor_parallel.SHORT, **CHAIN), alea_ids(LONG, **CHAIN)]
