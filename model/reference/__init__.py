"""The exact definition of a forward pass in NumPy: docs/definition.md, part two. One file an operation."""
