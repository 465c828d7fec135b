"""Moving requests between revisions: one file per way of doing it, behind the port in `port.py`."""
