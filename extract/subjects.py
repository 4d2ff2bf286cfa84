"""What is a subject, one who acts, and not an object."""

SUBJECTS = ("hand", "person")
"""Classes that are subjects unless something else is said."""
