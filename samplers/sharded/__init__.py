"""Draws over a vocabulary of which each process holds a part, without gathering the logits.

    out = samplers.sharded.sample(logits_shard, params, vocab_start=rank * V // ranks, seed=7)

Every process of the group gets the token, weight and total that `samplers.sample` gives for the whole row. `draw` has
the public function and the order of the messages, `shard` the logits of one process, `listed` the greatest logits of
all of them, which every process then has, `spread` the rows that such a list does not settle, `filters` the filters of
both, and `collectives` sends.
"""

from samplers.sharded.draw import sample

__all__ = ["sample"]
