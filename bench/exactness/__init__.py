"""Checks that a backend, a peer or a weight follows the definition."""
