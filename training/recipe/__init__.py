"""Recipes: their fields, and the catalogue by name."""
