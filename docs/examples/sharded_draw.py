"""Each process holds a part of the vocabulary: torchrun --nproc-per-node 2 docs/examples/sharded_draw.py"""

import torch
import torch.distributed as dist

import samplers
from samplers import SamplingParams

dist.init_process_group("gloo")
rank, ranks, vocabulary = dist.get_rank(), dist.get_world_size(), 128_256

torch.manual_seed(0)
logits = 3 * torch.randn(4, vocabulary)  # four whole rows, for comparison; a model gives a process its part alone
begin, end = (vocabulary * place // ranks for place in (rank, rank + 1))
params = SamplingParams(temperature=0.8, top_k=50, top_p=0.9)

out = samplers.sharded.sample(logits[:, begin:end], params, vocab_start=begin, seed=7)
whole = samplers.sample(logits, params, seed=7)
print(f"process {rank}: {out.tokens.tolist()}, as from whole rows: {torch.equal(out.tokens, whole.tokens)}")
dist.destroy_process_group()
