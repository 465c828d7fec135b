"""One module or package per kind: observe, decide, act, report."""
