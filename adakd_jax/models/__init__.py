"""One decoder for every supported family, and how each family configures it."""
