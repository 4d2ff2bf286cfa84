"""Training heads from batches: one run, or many in lockstep."""
