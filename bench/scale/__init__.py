"""Alea beyond one process: with Ray Data, and inside a trainer. Each module runs in an environment of its own."""
