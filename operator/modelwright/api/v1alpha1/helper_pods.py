"""Where pods beside the serving ones run, and how large they are."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, ListType, Names
from modelwright.api.common import (
    QUALIFIED_NAME,
    LabelValue,
    OpenObject,
    Quantity,
    Reference,
    Subdomain,
    Text253,
    Wire,
)

FETCH_PREFIX = "MODELWRIGHT_"
FETCH_VARIABLES = frozenset(
    f"{FETCH_PREFIX}FETCH_{name}"
    for name in (
        "ATTEMPTS", "BACKOFF_SECONDS", "CLAIM_SECONDS", "INSTANCE_CREDENTIALS", "LOG", "MAX_BACKOFF_SECONDS",
        "MAX_BYTES", "MAX_ENTRIES", "MAX_UNPACKED_BYTES", "MAX_UNPACKED_RATIO", "MEMORY_BYTES", "PARALLEL",
        "PART_BYTES", "PROGRESS_SECONDS", "STALL_SECONDS", "VERIFY_CACHE",
    )
)  # fmt: skip
"""What fetch reads; a name beside them would be a limit that is not kept."""

ROLE_SCAN: Final = "scan"
ROLE_EVALUATION: Final = "evaluation"
ROLE_INFRA: Final = "infra"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_KEY = re.compile(QUALIFIED_NAME)
_OURS = "modelwright.dev/"

_Metadata = Cel(
    f"self.all(key, key.matches(r'{QUALIFIED_NAME}') && !key.startsWith('{_OURS}'))",
    f"keys must be names of labels, and none of {_OURS}",
    lambda value: all(_KEY.fullmatch(key) and not key.startswith(_OURS) for key in value),
)
_Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


def variable_problem(name: str) -> str | None:
    """Why fetch can't be given the environment variable `name`; None when it can."""
    if not _VARIABLE.fullmatch(name):
        return f"{name!r} is no name of an environment variable"
    if name == "HOME" or (name.startswith(FETCH_PREFIX) and name not in FETCH_VARIABLES):
        return f"{name} is none of fetch's settings: they are {', '.join(sorted(FETCH_VARIABLES))}"
    return None


class HelperResources(Wire):
    """Compute resources of a container, as in a Pod. What is not named stays as it is."""

    requests: _Quantities = Field(default_factory=dict, description="What a node must have free, by resource.")
    limits: _Quantities = Field(default_factory=dict, description="What the container may use at most, by resource.")


class HelperPlace(Wire):
    """Where pods run, how large they are, and what their metadata says; most members are those of a PodSpec."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _Metadata] = Field(
        default_factory=dict, description="Labels of the pods, such as one that keeps a sidecar out."
    )
    annotations: Annotated[
        dict[str, Annotated[str, StringConstraints(strict=True, max_length=4096)]], Field(max_length=16), _Metadata
    ] = Field(default_factory=dict, description="Annotations of the pods.")
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] | None = Field(
        default=None, description="Labels that a node must have."
    )
    tolerations: (
        Annotated[
            tuple[OpenObject, ...],
            Field(max_length=32),
            ListType("atomic"),
            Names("Nothing", why="taints of nodes"),
        ]
        | None
    ) = Field(default=None, description="Taints of nodes that are tolerated.")
    affinity: Annotated[OpenObject, Names("Nothing", why="labels of nodes and pods")] | None = Field(
        default=None, description="Affinity of the pods, as in a PodSpec."
    )
    priority_class_name: Subdomain | None = Field(default=None, description="The PriorityClass of the pods.")
    resources: HelperResources | None = Field(
        default=None, description="Compute resources of each container of Modelwright's own in the pods."
    )
    env: Annotated[
        dict[Text253, Annotated[str, StringConstraints(strict=True, max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict, description="Environment of the containers that fetch, such as HTTPS_PROXY.")

    def members(self) -> dict[str, Any]:
        """What is said, in the names of the wire; empty when nothing is."""
        said = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"roles"})
        optional = {"nodeSelector", "tolerations", "affinity"}
        return {key: value for key, value in said.items() if value or key in optional}


class HelperPod(HelperPlace):
    """The same of the administrator, who may name Secrets in all namespaces."""

    image_pull_secrets: Annotated[tuple[Reference, ...], Field(max_length=16)] = Field(
        default=(), description="Secrets with credentials for the images, in the namespace of the pods."
    )

    def under(self, other: HelperPlace) -> HelperPod:
        """What holds where `other` is said as well: its members win, and maps and resources are merged by key."""
        ours, theirs = self.members(), other.members()
        merged = {**ours, **theirs}
        for member in ("labels", "annotations", "env"):
            if member in ours and member in theirs:
                merged[member] = {**ours[member], **theirs[member]}
        if "resources" in ours and "resources" in theirs:
            merged["resources"] = {
                kind: {**ours["resources"].get(kind, {}), **theirs["resources"].get(kind, {})}
                for kind in ("requests", "limits")
            }
        return HelperPod.model_validate(merged)


class HelperRoles(Wire):
    """What holds for the pods of one role, over what holds for all."""

    resolve: HelperPod = Field(default_factory=HelperPod, description="Find out digests of artifacts and data.")
    look: HelperPod = Field(default_factory=HelperPod, description="Look whether data has changed.")
    scan: HelperPod = Field(default_factory=HelperPod, description="The scan gate's.")
    evaluation: HelperPod = Field(default_factory=HelperPod, description="The evaluation gate's.")
    infra: HelperPod = Field(default_factory=HelperPod, description="The infra gate's prober.")
    metric: HelperPod = Field(default_factory=HelperPod, description="Jobs of metrics.")
    training: HelperPod = Field(default_factory=HelperPod, description="Stages of trainings that are Jobs.")
    comparer: HelperPod = Field(default_factory=HelperPod, description="Comparers of mirror steps.")
    observer: HelperPod = Field(default_factory=HelperPod, description="Observers of drift.")


class HelperPods(HelperPod):
    """What holds for all pods that Modelwright makes beside serving pods, and for each role of them."""

    roles: HelperRoles = Field(default_factory=HelperRoles)

    @functools.cached_property
    def by_role(self) -> dict[str, HelperPod]:
        """What holds for the pods of each role."""
        return {name: self.under(role) for name, role in self.roles}

    def of(self, role: str) -> HelperPod:
        """What holds for the pods of `role`, a member of HelperRoles."""
        return self.by_role[role]

    def with_place(self, place: HelperPlace) -> HelperPods:
        """The same where the author of a Model has said `place`, which wins over what is said for all and for roles."""
        return HelperPods.model_validate({
            "roles": {name: pods.under(place).members() for name, pods in self.by_role.items()}
        })  # fmt: skip


CLEAR_PROXIES = frozenset({"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"})
"""Proxies that see plain HTTP. Who names one reads what goes through it, and may answer in the server's place."""
PROXIES = CLEAR_PROXIES | {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
AUTHORS_VARIABLES = (
    "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy",
    *sorted(FETCH_VARIABLES - {f"{FETCH_PREFIX}FETCH_INSTANCE_CREDENTIALS", f"{FETCH_PREFIX}FETCH_VERIFY_CACHE"}),
)  # fmt: skip
"""What the author of a Model may set for whatever fetches beside its serving pods. Others, such as PYTHONPATH, would
change what a resolve pod says of a signature."""


class ModelHelperPods(HelperPlace):
    """Where the pods beside the serving ones run, and how large they are: those that resolve, look, gate, train,
    compare and observe. It wins over what the administrator says of them."""

    env: Annotated[
        dict[str, Annotated[str, StringConstraints(strict=True, max_length=4096)]],
        Field(max_length=32),
        Cel(
            f"self.all(key, key in {list(AUTHORS_VARIABLES)})",
            f"keys must be among {', '.join(AUTHORS_VARIABLES)}",
            lambda value: set(value) <= set(AUTHORS_VARIABLES),
        ),
    ] = Field(
        default_factory=dict,
        description="Environment of the containers that fetch: limits of fetch and proxies. The chart's fetch.env "
        "wins.",
    )
