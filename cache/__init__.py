"""The feature cache: schema, writer, reader, verification and HDF5 export; knows nothing of torch."""
