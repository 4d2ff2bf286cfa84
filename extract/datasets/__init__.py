"""Dataset adapters: files on disk to clips, tracks and protocols."""
