"""The demo: from nothing to real models rolled out, back, and trained anew, on a real cluster, told step by step."""
