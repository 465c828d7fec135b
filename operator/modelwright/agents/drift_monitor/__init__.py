"""The drift monitor: counts a Model's requests and answers, and measures their distance from the reference sample."""
