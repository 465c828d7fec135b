"""Handlers of the verbs of `kubectl modelwright`. A handler takes the parsed options and the kubectl client, and
returns the exit code."""
