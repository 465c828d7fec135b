"""Evidence on rollouts: measurements, statistics and verdicts, as pure functions."""
