"""The cost of a draw: on the CPU, on a GPU, inside transformers."""
