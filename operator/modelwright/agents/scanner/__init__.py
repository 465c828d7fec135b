"""The scan gate's program: reads an artifact without loading it, and reports which of its content would run code."""
