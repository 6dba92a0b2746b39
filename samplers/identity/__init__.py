"""Whether a backend equals the definition, to the bit: draws of generated rows, and the weight of each distance."""
