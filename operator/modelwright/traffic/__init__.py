"""Splits requests between revisions: the port is in `port.py`, each other module is one provider or a part of it."""
