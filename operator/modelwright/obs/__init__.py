"""Observability of the operator: metrics, JSON logs, and the clock that times everything else."""
