"""ifcar: object-centric activity recognition from one cached pass of a video backbone."""

__version__ = "0.1.0"
