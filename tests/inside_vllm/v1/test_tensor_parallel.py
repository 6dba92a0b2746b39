"""Oracle: one process. (Each of two draws every token, and they must agree.)"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable

from engines import CHAIN, LONG, PROMPTS, Ids, alea_ids, ids_of, new_engine, request, requests
from vllm import LLM

SOME = PROMPTS[:16]
TWO = dict(VLLM_CPU_OMP_THREADS_BIND="0|1")  # the core of each


def texts(llm: LLM) -> list[Ids]:
    """Short and long prompts with a seed; four without, of which each gets the engine's next stream."""
    return [
        ids_of(llm, SOME, requests(len(SOME), **CHAIN)),
        ids_of(llm, LONG, requests(len(LONG), **CHAIN)),
        ids_of(llm, SOME[:4], [request(seed=None, **CHAIN)] * 4),
    ]


def test_two_processes(engine: Callable[..., LLM]):
    command = [sys.executable, __file__]
    parallel = subprocess.run(command, env=os.environ | TWO, capture_output=True, text=True)
    assert parallel.returncode == 0, parallel.stderr
    found = json.loads(parallel.stdout.splitlines()[-1])
    assert found == texts(engine())
    assert found[:2] == [alea_ids(SOME, **CHAIN), alea_ids(LONG, **CHAIN)]


if __name__ == "__main__":
    print(json.dumps(texts(new_engine(tensor_parallel_size=2, distributed_executor_backend="mp"))))
