"""What a draw costs: on the CPU, on a GPU, inside transformers."""
