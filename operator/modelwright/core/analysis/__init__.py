"""What counts as evidence, and what it says: statistics of rollouts, as pure functions."""
