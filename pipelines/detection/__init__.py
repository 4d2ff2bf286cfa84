"""Detectors on clips: their options, what they find, and the file that grows meanwhile."""
