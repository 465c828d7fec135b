"""Users with the roles that the chart makes, and what they may write."""

from __future__ import annotations

from typing import Any

from tests.lib.control_plane import Server

Object = dict[str, Any]


RBAC = "rbac.authorization.k8s.io"


def tried(server: Server, obj: Object, user: str | None) -> str:
    """What the API server says against creating `obj` as `user`; nothing when it would."""
    answer = server.run("create", "--dry-run=server", "-f", "-", objects=obj, user=user)
    return "" if answer.returncode == 0 else answer.stderr
