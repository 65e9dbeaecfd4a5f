"""What a training is told: the fields of a recipe, and the recipes by name."""
