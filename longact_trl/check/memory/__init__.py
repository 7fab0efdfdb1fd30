"""How much memory a run takes, from formulas."""
