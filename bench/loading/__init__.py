"""What a model costs to load and to hold."""
