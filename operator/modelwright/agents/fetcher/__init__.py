"""The init container and the resolve pod: downloads a model's artifact into a folder and verifies its digest."""
