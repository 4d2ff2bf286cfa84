"""From a cache to a head: which rows, in which order, and where they wait."""
