"""`longact drift`: which rows training moved."""
