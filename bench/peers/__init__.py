"""The samplers that are compared: ours, and the peers, each behind the same small interface (`base`).

A peer that is not installed is skipped, with the reason.
"""

from __future__ import annotations

from bench.peers import alea, flashinfer, llama_cpp, torch, transformers
from bench.peers.base import GpuPeer, Peer

TWO_THREADS = "kernel, 2 threads"
OURS: dict[str, Peer] = {"kernel": alea.kernel, TWO_THREADS: alea.kernel_on_two_threads, "alea": alea.alea}
PEERS: dict[str, Peer] = {
    "torch": torch.plain,
    "torch.compile": torch.compiled,
    "llama.cpp": llama_cpp.llama_cpp,
    "transformers": transformers.transformers,
}
READING: dict[str, Peer] = {"max": lambda case: lambda step: case.logits.max()}  # no sampler, but the read limit
GPU_PEERS: dict[str, GpuPeer] = {
    "torch": torch.race,
    "torch.multinomial": torch.multinomial,
    "flashinfer": flashinfer.flashinfer,
}
