"""Measure the service beside its peers: `make bench`."""
