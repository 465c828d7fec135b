"""Modelwright: a Kubernetes operator that serves, rolls out and retrains machine-learning models."""
