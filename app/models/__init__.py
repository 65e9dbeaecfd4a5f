"""The model versions that serve, and how each is run on this machine."""
