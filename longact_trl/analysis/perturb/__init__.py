"""`longact perturb`: what a model loses without those channels."""
