"""Writes the status of an object."""

import contextlib
from typing import Any

from modelwright.api import names
from modelwright.api.common import TOO_LARGE_KEY, StatusWire
from modelwright.api.reasons import Reason
from modelwright.kube import api_errors
from modelwright.kube.workers import RequeueLater
from modelwright.reconcile.context import Context

Object = dict[str, Any]


async def write_status(context: Context, raw: Object, new: StatusWire, old: StatusWire) -> bool:
    """Apply `new` as the status of `raw`, when it differs from `old`. Returns whether something was written.

    The status must be based on the newest object, else Conflict: further decisions follow from it, so a late write, or
    one of a former leader, must not restore an earlier state. An object that was deleted meanwhile has no status.

    An API server takes seconds for the status of an object that is too large: those are written one at a time, so that
    a hundred of them occupy neither all workers nor the API server. Raises RequeueLater for the others.
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
    large = TOO_LARGE_KEY in raw
    if large and context.large_write_lock.locked():
        raise RequeueLater
    try:
        async with context.large_write_lock if large else contextlib.nullcontext():
            written = await context.client.apply(body, subresource="status", field_manager=names.STATUS_FIELD_MANAGER)
    except api_errors.NotFound:
        return False
    except api_errors.ObjectTooLarge as error:
        # Its status can't report that. The rest of the reconciliation depends on the status, so the error is raised.
        note = f"the status of {raw['kind']} {metadata['name']} can't be written: {error.message}. Shorten the object"
        context.events.record(raw, "Warning", Reason.STATUS_TOO_LARGE, note)
        raise
    context.store.put(written, quiet=True)
    return True
