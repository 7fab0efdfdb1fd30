"""A model by its name: what can be known of it, and what it takes to load it."""
