"""What a run is: its config, its data, and the folder it ends as."""
