"""The observer: counts what callers ask a Model and what it answers, and tells how far that is from the reference."""
