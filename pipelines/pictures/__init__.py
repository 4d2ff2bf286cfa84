"""Pictures of cached clips, and the fonts that their captions need."""
