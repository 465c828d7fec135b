"""Servers that tests of fetch start once a session."""

from __future__ import annotations

from typing import TypeVar, cast

from tests.fetch.stores import Store

S = TypeVar("S", bound=Store)


_running: dict[type[Store], Store] = {}


def started(kind: type[S]) -> S:
    """The session's server of this kind."""
    if kind not in _running:
        store = kind()
        try:
            store.start()
        except BaseException:
            Store.stop(store)
            raise
        _running[kind] = store
    return cast(S, _running[kind])
