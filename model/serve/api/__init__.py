"""What requests mean and how replies are written: one file for each kind, all without HTTP."""
