"""The cost of loading a model and of holding it in memory."""
