"""The commands of the command line, one file a group: parse, call one pipeline function, print."""
