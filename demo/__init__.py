"""The demo: real models are rolled out, rolled back and retrained on a real cluster, step by step."""
