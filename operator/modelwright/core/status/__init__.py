"""Statuses: pure functions from decisions to conditions and fields."""
