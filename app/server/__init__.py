"""Sockets, signals and processes."""
