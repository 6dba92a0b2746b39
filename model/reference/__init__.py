"""The exact definition of a forward pass in NumPy: docs/definition.md, part two. One file an operation."""

from model.reference import angles, attend, exponential, fused, linear, norm, rotate, swiglu

__all__ = ["angles", "attend", "exponential", "fused", "linear", "norm", "rotate", "swiglu"]
