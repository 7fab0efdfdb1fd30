"""One forward pass of a prompt for all its completions."""
