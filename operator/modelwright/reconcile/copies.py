"""The tokens by which the comparer and the observer know the copies that a Model's route has made."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import Record
from modelwright.reconcile.context import Context
from modelwright.reconcile.picture import Picture
from modelwright.serving import copies
from modelwright.traffic.port import Routed

Object = dict[str, Any]


def token(context: Context, picture: Picture, role: str, revisions: Sequence[Revision]) -> str:
    """Of the copies for the pod of this role, which asks these revisions; empty when none is asked for."""
    return _token(context, picture.raw, picture.stored, role, revisions)


def stale(
    context: Context, raw: Object, stored: Mapping[str, Object], record: Record | None, routed: Routed
) -> bool:  # fmt: skip
    """Whether the live route copies requests for the comparer of this record with another token than it asks for."""
    if not routed.mirror_percent or record is None or record.source is None or record.to is None:
        return False
    wanted = _token(context, raw, stored, names.ROLE_COMPARER, (record.source, record.to))
    return routed.copy_token != wanted


def _token(
    context: Context, raw: Object, stored: Mapping[str, Object], role: str, revisions: Sequence[Revision]
) -> str:  # fmt: skip
    if not context.images.copy_token:
        return ""
    return copies.token(raw, role, [stored[one.hash] for one in revisions if one.hash in stored])
