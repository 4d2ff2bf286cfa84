"""What the papers publish, and what runs here say beside it."""
