"""Studies of what a model says, and how sampling makes use of it: one question a file."""
