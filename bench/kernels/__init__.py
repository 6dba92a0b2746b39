"""What compiled kernels hold, for GPUs that are not here."""
