"""The one status write of a pass, and the Events that tell of transitions."""

from typing import Any

from modelwright.api import names
from modelwright.api.common import StatusWire
from modelwright.kube import errors
from modelwright.reconcile.context import Context

Object = dict[str, Any]


async def write_status(context: Context, raw: Object, new: StatusWire, old: StatusWire) -> bool:
    """Apply `new` as the status of `raw`, when it differs from `old`. Returns whether something was written.

    It must be based on the newest object, else Conflict: what is decided next follows from it, so that a write that
    arrives late, or an old leader's, must not bring an earlier state back. An object that was deleted meanwhile has no
    status to write.
    """
    if new == old:
        return False
    metadata = raw["metadata"]
    body = {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": {key: metadata[key] for key in ("name", "namespace", "uid", "resourceVersion")},
        "status": new.model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    try:
        answer = await context.client.apply(body, subresource="status", field_manager=names.STATUS_FIELD_MANAGER)
    except errors.NotFound:
        return False
    context.store.put(answer, quiet=True)
    return True
