"""`ifcar data check`: what is wrong with a data set, looked for as extraction would read it."""
