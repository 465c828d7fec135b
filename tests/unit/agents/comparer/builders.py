"""Shared values of the comparer's tests."""

from datetime import UTC, datetime

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
