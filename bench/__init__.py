"""Benchmarks whose records name their provenance; `alea bench`."""
