"""Boxes in the forms that annotation tools and detectors write: one form a file, recognised by content."""
