"""`ifcar grid`: a file of named systems becomes runs, and the runs a table."""
