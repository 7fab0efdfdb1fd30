"""LongAct in TRL: configuration, trainer, checkpoints, pushes."""
