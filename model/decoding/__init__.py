"""From a prompt to texts: sampling, beam search, stop strings, log-probabilities."""
