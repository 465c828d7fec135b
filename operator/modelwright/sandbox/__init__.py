"""Tenants' languages, read where they can do no harm: in a process of its own with bounds on time and memory."""
