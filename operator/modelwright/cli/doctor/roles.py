"""Rights of the shipped roles, and access reviews of a user's rights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, get_args

from modelwright.api.names import GROUP
from modelwright.api.v1alpha1.rollout import CommandName

_EDIT_PLURALS = ("models", "modelversions", "modelruntimes", "rolloutpolicies", "retrainingpolicies")
_VIEW_PLURALS = ("models", "modelversions", "rolloutpolicies", "modelrollouts", "retrainingpolicies", "trainingruns")

Right = tuple[str, str]
"""A plural of our group, and a verb."""

ROLES: Final[Mapping[str, tuple[Right, ...]]] = {
    "view": tuple((plural, "list") for plural in _VIEW_PLURALS),
    "edit": (
        *((plural, verb) for plural in _EDIT_PLURALS for verb in ("create", "patch", "delete")),
        ("retrainingpolicies", "trigger"),
        ("trainingruns", "create"),
    ),
    "command": (
        *(("models", verb) for verb in (*get_args(CommandName), "rollback")),
        ("modelrollouts", "create"),
        ("modelrollouts", "patch"),
    ),
    "approve": (("models", "approve"), ("approvals", "create")),
}
"""The characteristic rights of each role modelwright-<role>. Only `view` asks for rights to read."""


def build_reviews(namespace: str | None) -> list[dict[str, Any]]:
    """Build a SelfSubjectAccessReview for each right, in one namespace or in all."""
    return [
        {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {
                    "group": GROUP,
                    "resource": plural,
                    "verb": verb,
                    **({"namespace": namespace} if namespace else {}),
                }
            },
        }
        for rights in ROLES.values()
        for plural, verb in rights
    ]
