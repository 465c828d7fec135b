"""What the plugin reports to its user in one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """Something the user can change; the text says what is wrong, and what to do."""
