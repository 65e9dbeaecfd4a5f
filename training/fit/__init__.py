"""The training loop and its run directory."""
