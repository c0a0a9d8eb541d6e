"""Which queued task fits which waiting node: indexes and decisions that touch nothing."""
