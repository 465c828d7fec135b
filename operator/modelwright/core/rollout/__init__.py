"""Decisions of rollouts: the moves of a Model from its serving revision to its target."""
