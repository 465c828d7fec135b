"""Kopf registrations: every watched event goes to one sink, and nothing else happens in Kopf."""
