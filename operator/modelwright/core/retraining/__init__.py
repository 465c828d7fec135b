"""Decisions of retraining: when a run begins, what a run does next, and what its results come to."""
