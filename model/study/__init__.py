"""Studies of a language model and of sampling, one question per file."""
