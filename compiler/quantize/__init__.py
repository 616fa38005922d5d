"""From float weights to an integer model, and how good it is."""
