"""The exact definition of a forward pass in NumPy: docs/definition.md, part two. One file an operation."""

from model.reference import attend, exponential, fused, linear, norm, rotary, swiglu

__all__ = ["attend", "exponential", "fused", "linear", "norm", "rotary", "swiglu"]
