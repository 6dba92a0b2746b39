"""Loads a checkpoint into a Llama: reads, checks, casts and quantizes its tensors."""
