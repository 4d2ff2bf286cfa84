"""Fleets of runs that train together: which, how many, and on what machines."""
