"""Video backbones: frames to feature maps."""
