"""Heads of one structure trained and scored as one, and the noise that their dropout draws."""
