"""From a recipe to a trained network and one run record."""
