"""The exact definition of a draw in NumPy, one file per concept; docs/definition.md states it in words, step by step.

0 penalties · 1 and 2 sampler · 3 fixed_point · 4 top_k, top_p, cutoffs, typical · 5 philox, draw · 6 sampler.
This code is written to be read; every other backend computes the same integers faster.
"""

DEFINITION = 2  # version of the definition
