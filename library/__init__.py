"""What notebooks and scripts open: caches with their labelled examples, and finished runs."""
