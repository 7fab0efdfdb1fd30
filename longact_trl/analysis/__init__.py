"""What the activations and the runs look like, in pictures and numbers."""
