"""`longact study`: arms × seeds of a recipe, run to their end whatever stops them, and what they show."""
