"""Decisions of retraining: the start of runs, their next state and actions, and their results."""
