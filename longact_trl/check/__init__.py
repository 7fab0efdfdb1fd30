"""`longact check`: what would go wrong with a run, found without a GPU and without weights."""
