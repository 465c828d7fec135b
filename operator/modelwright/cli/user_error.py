"""The error that the plugin reports in one line, without a traceback."""

from __future__ import annotations


class UserError(Exception):
    """An error that the user can fix; the text says what is wrong, and what to do."""
