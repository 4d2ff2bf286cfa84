"""Training the backbone with a head on it: live features in place of cached ones."""
