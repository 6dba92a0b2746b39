"""Loads a checkpoint into a Llama: reads, checks, casts and quantises its tensors."""
