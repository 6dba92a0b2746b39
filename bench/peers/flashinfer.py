"""FlashInfer: kernels for NVIDIA GPUs, which `bench/gpu.sh` measures beside ours."""

from __future__ import annotations

from bench.peers.base import Draw, Unavailable
from bench.rows import Case


def flashinfer(case: Case) -> Draw:
    raise Unavailable("it runs on GPUs alone; bash bench/gpu.sh measures it there")
