"""The exact sampler in Triton: the same names and the same integers as `samplers/reference/`, many rows at once."""
