"""What a user writes: recipes in YAML, values on a command line, paths."""
