"""Faults between the operator and the API server: what injects them, and the command that reports them."""
