"""The demo: from nothing to real models rolled out, and back, on a real cluster, told step by step."""
