"""The paper's evaluations with their official protocols."""
