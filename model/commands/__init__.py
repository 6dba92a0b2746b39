"""The commands of `alea`, one a file."""
