"""Subcommands of `python -m modelwright` that are not the operator itself."""
