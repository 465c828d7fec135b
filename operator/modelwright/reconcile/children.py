"""Creates, repairs and removes child objects; never adopts or changes one that we do not control."""

from typing import Any

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.core import pod_failures
from modelwright.core.diff import differs
from modelwright.core.problem import Problem
from modelwright.kube import api_errors, kinds
from modelwright.kube.kinds import Kind
from modelwright.reconcile.context import Context

Object = dict[str, Any]

_HELPER_ROLES = (names.ROLE_RESOLVE, names.ROLE_DATA_POLL, names.ROLE_COMPARER, names.ROLE_OBSERVER)


class BlockedError(Exception):
    """An action that can't be carried out until a user changes something; `problem` is the message."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def is_controlled_by(obj: Object, uid: str) -> bool:
    """Whether the owner with this uid is the controller of `obj`."""
    return any(ref.get("controller") and ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())


def has_other_placement(wanted: Object, live: Object) -> bool:
    """Whether a helper pod, or its controller, was created with other settings of placement and size."""
    if (wanted["metadata"].get("labels") or {}).get(names.LABEL_ROLE) not in _HELPER_ROLES:
        return False
    marks = [(obj["metadata"].get("annotations") or {}).get(names.ANNOTATION_HELPER_PODS) for obj in (wanted, live)]
    return bool(marks[0] != marks[1])


async def ensure(context: Context, wanted: Object, *, guarded: bool = False) -> tuple[Object, bool]:
    """Create the child, or repair it to match `wanted`. Returns the live object, and whether it was written.

    Creating is a POST, the only write that can't adopt a foreign object of that name (docs/adr/0002). Repairing is a
    merge patch: apply would remove nothing that the POST, or others, have put into a list. A None in `wanted` stands
    for a member that must not exist. `guarded`: the change must be based on the latest object (traffic, pods), so that
    a former leader that resumes, and a late write, get a Conflict.

    Raises BlockedError when the name is taken, or the API server rejects or forbids the object; else ApiError.
    """
    kind = kinds.kind_of(wanted)
    metadata = wanted["metadata"]
    live = context.store.get(kind, metadata["namespace"], metadata["name"])
    owner = metadata["ownerReferences"][0]
    try:
        if live is None:
            live, is_new = await _create_child(context, kind, wanted)
            if is_new:
                return live, True
        if not is_controlled_by(live, owner["uid"]):
            raise BlockedError(_former_owner_problem(kind, wanted, live) or _name_taken_problem(kind, wanted, live))
        if has_other_placement(wanted, live):
            # A merge patch would leave former settings of its pods in place.
            await remove(context, live)
            return await _create_child(context, kind, wanted)
        if not differs(_comparable_part(wanted), live):
            return live, False
        ids = {"uid": live["metadata"]["uid"]}
        if guarded:
            ids["resourceVersion"] = live["metadata"]["resourceVersion"]
        live = await context.client.patch(_merge_patch({**wanted, "metadata": {**metadata, **ids}}))
    except api_errors.Invalid as error:
        raise BlockedError(_invalid_problem(kind, error)) from error
    except api_errors.Denied as error:
        serving = metadata.get("labels", {}).get(names.LABEL_ROLE) == names.ROLE_SERVING
        sizes = pod_failures.SERVING_RESOURCES_HINT if serving else pod_failures.HELPER_RESOURCES_HINT
        quota = pod_failures.explain_quota_refusal(
            error.message.partition(" is forbidden: ")[2] or error.message, sizes
        )
        if quota is not None:
            text = f"{kind} {metadata['name']} can't be made: {quota}"
            raise BlockedError(Problem(Reason.QUOTA_EXCEEDED, text, stalled=True)) from error
        text = f"the API server does not let the operator write {kind} {metadata['name']}: {error.message}"
        raise BlockedError(Problem(Reason.ACCESS_DENIED, text, stalled=True)) from error
    context.store.put(live, quiet=True)
    return live, True


async def _create_child(context: Context, kind: Kind, wanted: Object) -> tuple[Object, bool]:
    """Create the object. Returns it, or an existing one, and whether it is new.

    Raises AlreadyExists for one that is being deleted.
    """
    metadata = wanted["metadata"]
    try:
        live = await context.client.create(_without_nulls(wanted))
        context.store.put(live, quiet=True)
        return live, True
    except api_errors.AlreadyExists:
        existing = await context.client.get(kind, metadata["namespace"], metadata["name"])
        if existing is None or existing["metadata"].get("deletionTimestamp"):
            raise
    live = {**existing, "apiVersion": wanted["apiVersion"], "kind": wanted["kind"]}
    if is_controlled_by(live, metadata["ownerReferences"][0]["uid"]):
        context.store.put(live, quiet=True)
    return live, False


async def remove(context: Context, live: Object, *, guarded: bool = False) -> None:
    """Delete this very object, and drop it from the store. `guarded`: only in this very state, else Conflict."""
    kind, metadata = kinds.kind_of(live), live["metadata"]
    version = metadata["resourceVersion"] if guarded else None
    await context.client.delete(
        kind, metadata["namespace"], metadata["name"], uid=metadata["uid"], resource_version=version
    )
    context.store.forget(kind, metadata["namespace"], metadata["name"], metadata["uid"], quiet=True)


def _comparable_part(wanted: Object) -> Object:
    """The part of `wanted` to compare with the live object: all but its name and its owner, one of possibly many."""
    metadata = {key: wanted["metadata"][key] for key in ("labels", "annotations") if key in wanted["metadata"]}
    return {**wanted, "metadata": metadata}


def _without_nulls(wanted: Any) -> Any:
    """`wanted` without its Nones."""
    if isinstance(wanted, dict):
        return {key: _without_nulls(value) for key, value in wanted.items() if value is not None}
    return [_without_nulls(value) for value in wanted] if isinstance(wanted, list) else wanted


def _merge_patch(wanted: Object) -> Object:
    """`wanted` as a merge patch: a None takes a member of a map away; a list is sent whole, without Nones."""
    return {
        key: _merge_patch(value) if isinstance(value, dict) else _without_nulls(value) for key, value in wanted.items()
    }


def _former_owner_problem(kind: Kind, wanted: Object, live: Object) -> Problem | None:
    """The problem with a child of a former owner of the same name: the garbage collector is removing it."""
    owner = wanted["metadata"]["ownerReferences"][0]
    for ref in live["metadata"].get("ownerReferences") or ():
        if ref.get("controller") and (ref["apiVersion"], ref["kind"], ref["name"]) == (
            owner["apiVersion"],
            owner["kind"],
            owner["name"],
        ):
            text = f"{kind} {wanted['metadata']['name']} of the former {owner['kind']} {owner['name']} is being removed"
            return Problem(Reason.PROGRESSING_WITH_RETRY, text)
    return None


def _name_taken_problem(kind: Kind, wanted: Object, live: Object) -> Problem:
    owners = [f"{ref['kind']} {ref['name']}" for ref in live["metadata"].get("ownerReferences") or ()]
    whose = f"owned by {', '.join(owners)}" if owners else "without an owner"
    text = (
        f"{kind} {wanted['metadata']['name']} exists already, {whose}, and is not this Model's; it is left as it is. "
        "Rename the Model (metadata.name) or remove that object"
    )
    return Problem(Reason.NAME_TAKEN, text, stalled=True)


def _invalid_problem(kind: Kind, error: api_errors.ApiError) -> Problem:
    if isinstance(error, api_errors.ObjectTooLarge):
        text = f"the {kind} made from this object is too large: {error.message}. Shorten what goes into it"
        return Problem(Reason.CHILD_TOO_LARGE, text, stalled=True)
    if kind == kinds.DEPLOYMENT:
        text = f"spec.serving.podTemplate or the runtime's container makes pods the API server refuses: {error.message}"
        return Problem(Reason.INVALID_POD_TEMPLATE, text, stalled=True)
    return Problem(
        Reason.INVALID_SPEC, f"the API server refuses the {kind} made from this object: {error.message}", stalled=True
    )
