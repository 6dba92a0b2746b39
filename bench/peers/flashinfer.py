"""FlashInfer: kernels for NVIDIA GPUs, which `bench/gpu.sh` measures beside ours."""

from __future__ import annotations

from bench.cases import Case
from bench.peers.base import Draw, Unavailable


def flashinfer(case: Case) -> Draw:
    raise Unavailable("it runs on GPUs alone; bash bench/gpu.sh measures it there")
