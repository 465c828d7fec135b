"""Modelwright: a Kubernetes operator that serves, rolls out and retrains machine-learning models."""

VERSION = "0.1.0"
"""That of the package, the images and the charts; a test compares it with pyproject.toml."""
