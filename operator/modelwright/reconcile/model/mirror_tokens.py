"""The tokens by which the comparer and the drift monitor recognize the copies that a Model's route makes."""

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
    """The token of the copies for the pod of `role`, which queries these revisions; empty when tokens are off."""
    return _compute_token(context, snapshot.raw, snapshot.children.stored, role, revisions)


def has_stale_token(
    context: Context, raw: Object, stored: Mapping[str, Object], record: RolloutRecord | None, split: ObservedSplit
) -> bool:
    """Whether the live route copies requests to the record's comparer with another token than the comparer accepts."""
    if not split.mirror_percent or record is None or record.from_revision is None or record.candidate is None:
        return False
    wanted = _compute_token(context, raw, stored, names.ROLE_COMPARER, (record.from_revision, record.candidate))
    return split.copy_token != wanted


def _compute_token(
    context: Context, raw: Object, stored: Mapping[str, Object], role: str, revisions: Sequence[Revision]
) -> str:
    if not context.images.copy_token:
        return ""
    return mirror_target.mirror_token(
        raw, role, [stored[revision.hash] for revision in revisions if revision.hash in stored]
    )
