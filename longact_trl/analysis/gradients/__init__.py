"""`longact inspect --gradients`: where in W_Q and W_K the gradient of a policy is, and what a step there does."""
