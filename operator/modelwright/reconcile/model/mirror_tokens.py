"""The tokens by which the comparer and the observer know the copies that a Model's route has made."""

from collections.abc import Mapping, Sequence
from typing import Any

from modelwright.api import names
from modelwright.core.revision import Revision
from modelwright.core.rollout.record import RolloutRecord
from modelwright.reconcile.context import Context
from modelwright.reconcile.model.snapshot import ModelSnapshot
from modelwright.render import mirror_target
from modelwright.traffic.port import ObservedSplit

Object = dict[str, Any]


def mirror_token(context: Context, snapshot: ModelSnapshot, role: str, revisions: Sequence[Revision]) -> str:
    """Of the copies for the pod of this role, which asks these revisions; empty when none is asked for."""
    return _compute_token(context, snapshot.raw, snapshot.children.stored, role, revisions)


def has_stale_token(
    context: Context, raw: Object, stored: Mapping[str, Object], record: RolloutRecord | None, routed: ObservedSplit
) -> bool:
    """Whether the live route copies requests for the comparer of this record with another token than it asks for."""
    if not routed.mirror_percent or record is None or record.from_revision is None or record.candidate is None:
        return False
    wanted = _compute_token(context, raw, stored, names.ROLE_COMPARER, (record.from_revision, record.candidate))
    return routed.copy_token != wanted


def _compute_token(
    context: Context, raw: Object, stored: Mapping[str, Object], role: str, revisions: Sequence[Revision]
) -> str:
    if not context.images.copy_token:
        return ""
    return mirror_target.mirror_token(raw, role, [stored[one.hash] for one in revisions if one.hash in stored])
