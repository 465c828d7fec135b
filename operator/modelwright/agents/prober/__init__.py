"""The infra gate's prober: sends a version's samples to its pods before any caller does, and reports the result."""
