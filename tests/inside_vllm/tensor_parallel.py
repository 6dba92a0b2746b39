"""Prints the texts of an engine of two processes, which share the model: `test_tensor_parallel.py` runs it."""

from __future__ import annotations

import json

from engines import CHAIN, LONG, PROMPTS, Ids, ids_of, new_engine, request, requests
from vllm import LLM

SHORT = PROMPTS[:16]


def texts(llm: LLM) -> list[Ids]:
    """Of short and long prompts with a seed; and of four without, each of which gets the engine's next stream."""
    return [
        ids_of(llm, SHORT, requests(len(SHORT), **CHAIN)),
        ids_of(llm, LONG, requests(len(LONG), **CHAIN)),
        ids_of(llm, SHORT[:4], [request(seed=None, **CHAIN)] * 4),
    ]


if __name__ == "__main__":
    print(json.dumps(texts(new_engine(tensor_parallel_size=2, distributed_executor_backend="mp"))))
