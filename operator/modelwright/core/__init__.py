"""Decisions: pure functions from what is declared and observed to what is to be done. No I/O, no clock, no logging."""
