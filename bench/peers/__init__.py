"""Whom `alea bench sample` measures: ours, and each peer behind the same small interface (`base`).

Only installed packages are called; one that is not there is told as skipped, with the reason.
"""

from __future__ import annotations

from bench.peers.alea import alea, kernel, kernel_on_two_threads
from bench.peers.base import SEED, Contestant, Draw, Unavailable
from bench.peers.compiled_torch import compiled_torch
from bench.peers.flashinfer import flashinfer
from bench.peers.llama_cpp import llama_cpp
from bench.peers.plain_torch import plain_torch, torch_filtered
from bench.peers.transformers import transformers
from bench.peers.user import named

TWO_THREADS = "kernel, 2 threads"
OURS: dict[str, Contestant] = {"kernel": kernel, TWO_THREADS: kernel_on_two_threads, "alea": alea}
PEERS: dict[str, Contestant] = {
    "torch": plain_torch,
    "torch.compile": compiled_torch,
    "llama.cpp": llama_cpp,
    "transformers": transformers,
    "flashinfer": flashinfer,
}
# Not a sampler: what reading the rows once costs.
LIMITS: dict[str, Contestant] = {"max": lambda case: lambda step: case.logits.max()}

__all__ = [
    "LIMITS",
    "OURS",
    "PEERS",
    "SEED",
    "TWO_THREADS",
    "Contestant",
    "Draw",
    "Unavailable",
    "alea",
    "named",
    "torch_filtered",
]
