"""Export a run directory as a bundle, and the gates in between."""
