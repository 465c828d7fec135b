"""Placement and size of all pods other than serving pods."""

from __future__ import annotations

import functools
import re
from typing import Annotated, Any, Final

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, ListType, NamedObject
from modelwright.api.common import (
    QUALIFIED_NAME,
    LabelValue,
    LocalObjectReference,
    OpenObject,
    Quantity,
    Subdomain,
    Text253,
    Wire,
)

FETCH_PREFIX = "MODELWRIGHT_"
FETCH_VARIABLES = frozenset(
    f"{FETCH_PREFIX}FETCH_{name}"
    for name in (
        "ATTEMPTS",
        "BACKOFF_SECONDS",
        "CLAIM_SECONDS",
        "INSTANCE_CREDENTIALS",
        "LOG",
        "MAX_BACKOFF_SECONDS",
        "MAX_BYTES",
        "MAX_ENTRIES",
        "MAX_UNPACKED_BYTES",
        "MAX_UNPACKED_RATIO",
        "MEMORY_BYTES",
        "PARALLEL",
        "PART_BYTES",
        "PROGRESS_SECONDS",
        "STALL_SECONDS",
        "VERIFY_CACHE",
    )
)
"""Variables that fetch reads; it would ignore any other."""

ROLE_SCAN: Final = "scan"
ROLE_EVALUATION: Final = "evaluation"
ROLE_INFRA: Final = "infra"

_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_METADATA_KEY = re.compile(QUALIFIED_NAME)
_OWN_PREFIX = "modelwright.dev/"

_METADATA_KEYS_RULE = Cel(
    f"self.all(key, key.matches(r'{QUALIFIED_NAME}') && !key.startsWith('{_OWN_PREFIX}'))",
    f"keys must be names of labels, and none of {_OWN_PREFIX}",
    lambda value: all(_METADATA_KEY.fullmatch(key) and not key.startswith(_OWN_PREFIX) for key in value),
)
_Quantities = Annotated[dict[str, Quantity], Field(max_length=16)]


def variable_problem(name: str) -> str | None:
    """Return why fetch can't be given the environment variable `name`; None when it can."""
    if not _VARIABLE_NAME.fullmatch(name):
        return f"{name!r} is no name of an environment variable"
    if name == "HOME" or (name.startswith(FETCH_PREFIX) and name not in FETCH_VARIABLES):
        return f"{name} is none of fetch's settings: they are {', '.join(sorted(FETCH_VARIABLES))}"
    return None


class HelperResources(Wire):
    """Compute resources of a container, as in a Pod. Resources that are not named stay unchanged."""

    requests: _Quantities = Field(default_factory=dict, description="Free resources that a node must have.")
    limits: _Quantities = Field(default_factory=dict, description="The most that the container may use, by resource.")


class HelperPlacement(Wire):
    """Placement, size and metadata of pods; most members are those of a PodSpec."""

    labels: Annotated[dict[str, LabelValue], Field(max_length=16), _METADATA_KEYS_RULE] = Field(
        default_factory=dict, description="Labels of the pods, such as one that keeps a sidecar out."
    )
    annotations: Annotated[
        dict[str, Annotated[str, StringConstraints(strict=True, max_length=4096)]],
        Field(max_length=16),
        _METADATA_KEYS_RULE,
    ] = Field(default_factory=dict, description="Annotations of the pods.")
    node_selector: Annotated[dict[str, LabelValue], Field(max_length=16)] | None = Field(
        default=None, description="Labels that a node must have."
    )
    tolerations: (
        Annotated[
            tuple[OpenObject, ...],
            Field(max_length=32),
            ListType("atomic"),
            NamedObject("Nothing", why="taints of nodes"),
        ]
        | None
    ) = Field(default=None, description="Taints of nodes that are tolerated.")
    affinity: Annotated[OpenObject, NamedObject("Nothing", why="labels of nodes and pods")] | None = Field(
        default=None, description="Affinity of the pods, as in a PodSpec."
    )
    priority_class_name: Subdomain | None = Field(default=None, description="The PriorityClass of the pods.")
    resources: HelperResources | None = Field(
        default=None, description="Compute resources of each container of Modelwright's own in the pods."
    )
    env: Annotated[
        dict[Text253, Annotated[str, StringConstraints(strict=True, max_length=4096)]], Field(max_length=64)
    ] = Field(default_factory=dict, description="Environment of the containers that fetch, such as HTTPS_PROXY.")

    def to_pod_members(self) -> dict[str, Any]:
        """Return the members that are set, by their JSON names; empty when none is."""
        members = self.model_dump(mode="json", by_alias=True, exclude_none=True, exclude={"roles"})
        optional = {"nodeSelector", "tolerations", "affinity"}
        return {key: value for key, value in members.items() if value or key in optional}


class AdminHelperPlacement(HelperPlacement):
    """The administrator's placement, which may name Secrets in all namespaces."""

    image_pull_secrets: Annotated[tuple[LocalObjectReference, ...], Field(max_length=16)] = Field(
        default=(), description="Secrets with credentials for the images, in the namespace of the pods."
    )

    def overridden_by(self, other: HelperPlacement) -> AdminHelperPlacement:
        """Return this placement with the members of `other` over it; maps and resources are merged by key."""
        ours, theirs = self.to_pod_members(), other.to_pod_members()
        merged = {**ours, **theirs}
        for member in ("labels", "annotations", "env"):
            if member in ours and member in theirs:
                merged[member] = {**ours[member], **theirs[member]}
        if "resources" in ours and "resources" in theirs:
            merged["resources"] = {
                kind: {**ours["resources"].get(kind, {}), **theirs["resources"].get(kind, {})}
                for kind in ("requests", "limits")
            }
        return AdminHelperPlacement.model_validate(merged)


class HelperRoles(Wire):
    """Placement by role; it overrides the placement for all pods."""

    resolve: AdminHelperPlacement = Field(
        default_factory=AdminHelperPlacement, description="Determine digests of artifacts and data."
    )
    look: AdminHelperPlacement = Field(
        default_factory=AdminHelperPlacement, description="Check whether data has changed."
    )
    scan: AdminHelperPlacement = Field(default_factory=AdminHelperPlacement, description="The scan gate's.")
    evaluation: AdminHelperPlacement = Field(default_factory=AdminHelperPlacement, description="The evaluation gate's.")
    infra: AdminHelperPlacement = Field(default_factory=AdminHelperPlacement, description="The infra gate's prober.")
    metric: AdminHelperPlacement = Field(default_factory=AdminHelperPlacement, description="Jobs of metrics.")
    training: AdminHelperPlacement = Field(
        default_factory=AdminHelperPlacement, description="Stages of trainings that are Jobs."
    )
    comparer: AdminHelperPlacement = Field(
        default_factory=AdminHelperPlacement, description="Comparers of mirror steps."
    )
    observer: AdminHelperPlacement = Field(default_factory=AdminHelperPlacement, description="Observers of drift.")


class HelperPods(AdminHelperPlacement):
    """Placement of all pods that Modelwright makes other than serving pods, and of each role of them."""

    roles: HelperRoles = Field(default_factory=HelperRoles)

    @functools.cached_property
    def by_role(self) -> dict[str, AdminHelperPlacement]:
        """Placement of the pods of each role."""
        return {name: self.overridden_by(role) for name, role in self.roles}

    def for_role(self, role: str) -> AdminHelperPlacement:
        """Return the placement of the pods of `role`, a member of HelperRoles."""
        return self.by_role[role]

    def with_placement(self, place: HelperPlacement) -> HelperPods:
        """Return these placements with a Model's `place` over them; it wins over those for all pods and for roles."""
        return HelperPods.model_validate(
            {"roles": {name: pods.overridden_by(place).to_pod_members() for name, pods in self.by_role.items()}}
        )


PLAINTEXT_PROXIES = frozenset({"HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"})
"""Proxies that see plain HTTP. An author who names one can read the traffic and answer in the server's place."""
PROXY_VARIABLES = PLAINTEXT_PROXIES | {"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}
AUTHOR_VARIABLES = (
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
    "no_proxy",
    *sorted(FETCH_VARIABLES - {f"{FETCH_PREFIX}FETCH_INSTANCE_CREDENTIALS", f"{FETCH_PREFIX}FETCH_VERIFY_CACHE"}),
)
"""Variables that the author of a Model may set for fetching outside its serving pods. Others, such as PYTHONPATH, would
change what a resolve pod reports of a signature."""


class ModelHelperPods(HelperPlacement):
    """Placement and size of a Model's pods that resolve, poll data, gate, train, compare and observe. It overrides the
    administrator's placement."""

    env: Annotated[
        dict[str, Annotated[str, StringConstraints(strict=True, max_length=4096)]],
        Field(max_length=32),
        Cel(
            f"self.all(key, key in {list(AUTHOR_VARIABLES)})",
            f"keys must be among {', '.join(AUTHOR_VARIABLES)}",
            lambda value: set(value) <= set(AUTHOR_VARIABLES),
        ),
    ] = Field(
        default_factory=dict,
        description="Environment of the containers that fetch: limits of fetch and proxies. The chart's fetch.env "
        "wins.",
    )
