"""Trust in pods: a report counts only from a pod that we rendered, or that a Job's controller made from its template.

The admission policy modelwright-children complements it: it keeps others from creating pods that look like ours
(docs/adr/0028).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelwright.api import names
from modelwright.core.diff import differs

Object = dict[str, Any]

_PROTECTED_MEMBERS = (
    "command",
    "args",
    "workingDir",
    "envFrom",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
)
"""Members of a container that decide its behaviour, and that no admission webhook has a reason to change."""
MAX_CONTROLLERS_BETWEEN = 3
"""Limit of the controllers between a pod and the object of a stage: a TrainJob has a JobSet and a Job."""
KEPT_RUNNING = "KeptRunning"
"""status.reason that `mark_ended` sets on a pod whose rendered containers have ended and which others keep running."""
_CODE_LOADING_VARIABLE = re.compile(
    r"(LD_|MODELWRIGHT_).*|PYTHON(?!UNBUFFERED$|DONTWRITEBYTECODE$|IOENCODING$|UTF8$|HASHSEED$).*|PATH|BASH_ENV"
    r"|NODE_OPTIONS|JAVA_TOOL_OPTIONS|JDK_JAVA_OPTIONS|_JAVA_OPTIONS|PERL5(OPT|LIB)|RUBY(OPT|LIB)"
)
"""Variables that make a program run other code, or that configure ours.

An injector that acts on annotations can set them, and authors may write annotations.
"""
_SHARED_NAMESPACES = ("shareProcessNamespace", "hostPID", "hostIPC")
_DEFAULTS = {"terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File"}


@dataclass(frozen=True, slots=True)
class TrustedPods:
    """The trusted pods, with the messages of the rendered containers only; and why each other pod is not trusted."""

    pods: tuple[Object, ...]
    refusals: tuple[str, ...] = ()

    @property
    def refusal_text(self) -> str:
        """The refusals as one text; empty when there are none."""
        return "; ".join(self.refusals[:2])


def trust_job_pods(job: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> TrustedPods:
    """Return the trusted pods of this Job (batch/v1): controlled by it and made from its own template."""
    return trust_pods(str(job["metadata"]["uid"]), (job.get("spec") or {}).get("template") or {}, pods)


def trust_pods(controller: str, template: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> TrustedPods:
    """Return the trusted pods of the object with the uid `controller`, which makes them from `template`."""
    trusted, refusals = [], []
    for pod in pods:
        why = find_pod_mismatch(pod, controller, template)
        if why is None:
            trusted.append(mark_ended(drop_foreign_messages(pod, template), template))
        else:
            refusals.append(f"pod {pod['metadata']['name']} is not trusted: {why}")
    return TrustedPods(tuple(trusted), tuple(refusals))


def trust_tree_pods(
    root: str, pods: Sequence[Mapping[str, Any]], between: Mapping[str, Mapping[str, Any] | None]
) -> TrustedPods:
    """Return the trusted pods of another controller's object, with the uid `root`, to which their controllers lead.

    `between` has the controllers that were read, by the uid in owner references; None for one that we may not read: a
    pod below it is trusted. Below a Job among them, a pod is trusted if it matches the Job's template.
    """
    known = {**{str(pod["metadata"].get("uid")): pod for pod in pods}, **between}
    trusted, refusals = [], []
    for pod in pods:
        why = _find_broken_chain(pod, root, known)
        if why is None:
            trusted.append(dict(pod))
        else:
            refusals.append(f"pod {pod['metadata']['name']} is not trusted: {why}")
    return TrustedPods(tuple(trusted), tuple(refusals))


def find_controller(obj: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the reference to an object's controller; None when there is none, or more than one."""
    owners = [ref for ref in obj["metadata"].get("ownerReferences") or () if ref.get("controller")]
    return owners[0] if len(owners) == 1 else None


def _find_broken_chain(pod: Mapping[str, Any], root: str, known: Mapping[str, Mapping[str, Any] | None]) -> str | None:
    """Return why the controllers of a pod don't lead to `root`; None when they do, or when that can't be known."""
    obj = pod
    for _ in range(MAX_CONTROLLERS_BETWEEN + 1):
        owner = find_controller(obj)
        if owner is None:
            return f"nothing controls {obj.get('kind', 'Pod')} {obj['metadata']['name']}"
        uid = str(owner.get("uid"))
        if uid == root:
            return None
        if uid not in known:
            return f"{owner.get('kind')} {owner.get('name')} controls it, which is not there or has another uid"
        above = known[uid]
        if above is None:
            return None
        if above.get("kind") == "Job":
            why = find_pod_mismatch(obj, uid, (above.get("spec") or {}).get("template") or {})
            if why is not None:
                return f"of Job {owner.get('name')}: {why}"
        obj = above
    return f"there are more than {MAX_CONTROLLERS_BETWEEN} controllers between it and the stage's object"


def find_pod_mismatch(pod: Mapping[str, Any], controller: str, template: Mapping[str, Any]) -> str | None:
    """Return why a pod was not made by `controller` from `template`; None when it was.

    Admission may add labels, annotations, environment variables that load no code, volumes, mounts apart from ours, and
    whole containers that mount nothing of ours. All rendered members must be unchanged, but for a digest added to an
    image.
    """
    owners = [ref for ref in pod["metadata"].get("ownerReferences") or () if ref.get("controller")]
    if [ref.get("uid") for ref in owners] != [controller]:
        return "another object controls it, or none"
    labels = pod["metadata"].get("labels") or {}
    for key, value in ((template.get("metadata") or {}).get("labels") or {}).items():
        if key.startswith(f"{names.GROUP}/") and labels.get(key) != value:
            return f"its label {key} is not {value}"
    spec, wanted = pod.get("spec") or {}, template.get("spec") or {}
    for member in _SHARED_NAMESPACES:
        if bool(spec.get(member)) != bool(wanted.get(member)):
            return f"spec.{member} was changed"
    volumes = _by_name(spec.get("volumes"))
    for name, volume in _by_name(wanted.get("volumes")).items():
        # An empty emptyDir is a value too: no other source may replace it.
        if name not in volumes or set(volumes[name]) != set(volume) or differs(volume, volumes[name]):
            return f"its volume {name} was changed"
    return _containers_differ(spec, wanted)


def drop_foreign_messages(pod: Mapping[str, Any], template: Mapping[str, Any]) -> Object:
    """Return the pod without the termination messages of containers that others have added to it."""
    status = pod.get("status") or {}
    rendered = _by_name((template.get("spec") or {}).get("containers")).keys()
    statuses = status.get("containerStatuses")
    if not statuses or all(entry.get("name") in rendered for entry in statuses):
        return dict(pod)
    entries = [entry if entry.get("name") in rendered else _without_messages(entry) for entry in statuses]
    return {**pod, "status": {**status, "containerStatuses": entries}}


def mark_ended(pod: Mapping[str, Any], template: Mapping[str, Any]) -> Object:
    """Return the pod as ended once all its rendered containers have ended, with KEPT_RUNNING as `status.reason`.

    A container that admission added may run forever, and the pod's phase then stays Running.
    """
    status, spec = pod.get("status") or {}, template.get("spec") or {}
    rendered, reported = _by_name(spec.get("containers")).keys(), _by_name(status.get("containerStatuses"))
    if status.get("phase") != "Running" or not rendered or not reported.keys() - rendered:
        return dict(pod)
    ends = [((reported.get(name) or {}).get("state") or {}).get("terminated") for name in rendered]
    if not all(ends):
        return dict(pod)
    well = all(end is not None and end.get("exitCode") == 0 for end in ends)
    if not well and spec.get("restartPolicy") != "Never":
        return dict(pod)
    return {**pod, "status": {**status, "phase": "Succeeded" if well else "Failed", "reason": KEPT_RUNNING}}


def container_status(pod: Mapping[str, Any], container: str) -> Object:
    """Return the status of one container; empty while there is none."""
    return dict(_by_name((pod.get("status") or {}).get("containerStatuses")).get(container) or {})


def _containers_differ(spec: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    ours = set(_by_name(wanted.get("volumes")))
    for member in ("containers", "initContainers"):
        live, rendered = _by_name(spec.get(member)), _by_name(wanted.get(member))
        for name, container in rendered.items():
            why = _container_differs(live[name], container) if name in live else "it is missing"
            if why is not None:
                return f"container {name}: {why}"
        for name in live.keys() - rendered.keys():
            shared = sorted(ours & {str(mount.get("name")) for mount in live[name].get("volumeMounts") or ()})
            if shared:
                return f"container {name} was added to it, and mounts the volume {shared[0]}"
    return None


def _container_differs(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    image, wanted_image = str(live.get("image", "")), str(wanted.get("image", ""))
    if not _same_image(image, wanted_image):
        return (
            f"its image is {image[:256]}, and must be {wanted_image[:256]}; a webhook that changes images of pods has "
            "to change them in templates too, or the name that it writes has to be configured"
        )
    for member in _PROTECTED_MEMBERS:
        if _members_differ(wanted.get(member), live.get(member), _DEFAULTS.get(member)):
            return f"its {member} was changed"
    environment = _by_name(live.get("env"))
    for name, variable in _by_name(wanted.get("env")).items():
        if differs(variable, environment.get(name)):
            return f"its variable {name} was changed"
    for name in sorted(environment.keys() - _by_name(wanted.get("env")).keys()):
        if _CODE_LOADING_VARIABLE.fullmatch(name):
            return (
                f"the variable {name} was added to it, by which other code speaks for it; keep what injects it out of "
                "this pod, such as by helperPods.annotations"
            )
    return _mounts_differ(live, wanted)


def _mounts_differ(live: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    mounts = list(live.get("volumeMounts") or ())
    rendered = list(wanted.get("volumeMounts") or ())
    for mount in rendered:
        if not any(not differs(mount, other) for other in mounts):
            return f"its mount at {mount.get('mountPath')} was changed"
    report = str(live.get("terminationMessagePath") or _DEFAULTS["terminationMessagePath"])
    places = [report, *(str(mount.get("mountPath")) for mount in rendered)]
    for mount in mounts:
        path = str(mount.get("mountPath", "")).rstrip("/")
        if any(not differs(own, mount) for own in rendered):
            continue
        if any(f"{place.rstrip('/')}/".startswith(f"{path}/") for place in places):
            return f"something was mounted over {path or '/'}"
    return None


def _same_image(live: str, wanted: str) -> bool:
    """Return whether an image is the wanted one, or the same with a digest that admission has added."""
    if live == wanted:
        return True
    name, _, digest = live.partition("@")
    if not digest or "@" in wanted:
        return False
    repository = wanted.rpartition(":")[0] if ":" in wanted.rpartition("/")[2] else wanted
    return name in (wanted, repository)


def _members_differ(wanted: Any, live: Any, default: Any) -> bool:
    """Return whether two members differ, other than by a default of the API server."""
    return (wanted or default) != (live or default) and differs(wanted or default, live or default)


def _without_messages(entry: Mapping[str, Any]) -> Object:
    """Return a container's status without its termination messages."""
    kept = dict(entry)
    for member in ("state", "lastState"):
        ended = (entry.get(member) or {}).get("terminated")
        if ended and "message" in ended:
            kept[member] = {**entry[member], "terminated": {k: v for k, v in ended.items() if k != "message"}}
    return kept


def _by_name(entries: Sequence[Mapping[str, Any]] | None) -> dict[str, Mapping[str, Any]]:
    return {str(entry.get("name")): entry for entry in entries or ()}
