"""Stage two: one file per published head, their shared blocks and the registry."""
