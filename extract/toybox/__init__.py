"""The generated data set: action templates, object looks, scene simulation and rendering."""
