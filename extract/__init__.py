"""Stage one: datasets, decoding, sampling, crops, backbones, RoIAlign and the extraction engine."""
