"""Measures the metrics of rollouts and triggers: Prometheus, JSON over HTTP, Jobs, and the comparer."""
