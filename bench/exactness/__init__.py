"""Whether a backend, a peer or a weight is what the definition says."""
