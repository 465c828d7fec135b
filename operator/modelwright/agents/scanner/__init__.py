"""The scan gate's program: reads an artifact without loading it, and says what in it would run."""
