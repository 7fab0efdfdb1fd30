"""How much memory a run takes on each GPU, without one."""
