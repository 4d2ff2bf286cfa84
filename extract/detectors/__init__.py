"""Networks that find boxes in single pictures: one file a family."""
