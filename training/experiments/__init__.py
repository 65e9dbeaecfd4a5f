"""Comparisons and ensembles of whole trainings."""
