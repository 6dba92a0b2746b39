"""Benchmarks whose figures come with their circumstances; `alea bench`."""
