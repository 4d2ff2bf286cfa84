"""Where work runs: in this process and its children, or on the nodes of a Ray cluster."""
