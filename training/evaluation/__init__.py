"""Measure an exported bundle through the code that serves it; never torch."""
