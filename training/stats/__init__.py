"""Figures of a set of predictions, their intervals and comparisons; numpy only."""
