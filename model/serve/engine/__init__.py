"""Continuous batching: requests join and leave the batch at each step. Nothing here knows of HTTP."""
