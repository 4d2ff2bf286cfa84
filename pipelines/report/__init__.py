"""`ifcar report`: one self-contained page of tables, figures and clips."""
