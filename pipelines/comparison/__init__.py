"""Comparing systems: intervals and tests over clips, tables of them, and the files they are written to."""
