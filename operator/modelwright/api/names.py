"""Names, labels, annotations and field managers of Modelwright's objects, and the pure functions that build them."""

from __future__ import annotations

import base64
import hashlib
import json
from typing import Any, Final

GROUP: Final = "modelwright.dev"
VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
CATEGORY: Final = "modelwright"

FIELD_MANAGER: Final = "modelwright"
"""Field manager of every child object the operator applies."""
STATUS_FIELD_MANAGER: Final = "modelwright-status"
"""Field manager of the status of Modelwright's own kinds."""

LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"
MANAGED_BY: Final = "modelwright"
LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_VERSION: Final = f"{GROUP}/version"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_ROLE: Final = f"{GROUP}/role"
LABEL_RUN: Final = f"{GROUP}/run"
LABEL_SHARD: Final = f"{GROUP}/shard"
"""On a Namespace: the shard whose operator works there. On a Lease: the shard that its holder leads."""
LABEL_TRIGGER: Final = f"{GROUP}/trigger"
LABEL_DATA_POLL: Final = f"{GROUP}/look"
"""On the pod of a data trigger: the name of its CronJob."""
ROLE_SERVING: Final = "serving"
ROLE_RESOLVE: Final = "resolve"
ROLE_COMPARER: Final = "comparer"
ROLE_OBSERVER: Final = "observer"
ROLE_GATE: Final = "gate"
ROLE_TRAINING: Final = "training"
ROLE_DATA_POLL: Final = "look"
ROLE_CLAIM: Final = "claim"
ROLE_POLICY: Final = "policy"
"""Role of a ControllerRevision that holds the policy of rollouts or runs."""
REPORTING_ROLES: Final = (ROLE_RESOLVE, ROLE_TRAINING, ROLE_DATA_POLL)
"""Roles of pods whose termination message is a result; the operator watches these pods."""
MANAGED_SELECTOR: Final = f"{LABEL_MANAGED_BY}={MANAGED_BY}"
"""Label selector that finds every child object of the operator."""

COPY_TOKEN_HEADER: Final = "Modelwright-Copy-Token"  # noqa: S105 - a name
"""Header that a route sets on copied requests, by which the comparer and the drift monitor recognise them."""
ANNOTATION_VERSION_NAME: Final = f"{GROUP}/version-name"
"""Full name of the ModelVersion, because a label value holds at most 63 characters."""
ANNOTATION_INSTALL: Final = f"{GROUP}/install"
"""On the claim of a namespace: which install works there."""
ANNOTATION_CONTENDER: Final = f"{GROUP}/asked-by"
"""On the claim of a namespace: another install that checks whether the first still works there."""
ANNOTATION_INPUTS: Final = f"{GROUP}/inputs"
"""On the pods of a TrainingRun: inputs.json, which the downward API puts into a file."""
ANNOTATION_VERIFIED: Final = f"{GROUP}/verified"
"""On a shipped runtime: "true" when the project's tests run it, "false" when only its schema was checked."""
ANNOTATION_HELPER_PODS: Final = f"{GROUP}/helper-pods"
"""On controllers of helper pods: a hash of the administrator's placement and sizes."""

MODEL_NAME_MAX: Final = 50
"""Longest Model name: leaves room for "-<revision hash>" within the 63 characters of a Service name."""
LABEL_VALUE_MAX: Final = 63
OBJECT_NAME_MAX: Final = 253
HASH_LENGTH: Final = 10

OPERATOR_NAMESPACE: Final = "modelwright-system"
OPERATOR_LEASE: Final = "modelwright-operator"
CLAIM_NAME: Final = "modelwright-install"
"""The ControllerRevision in each namespace that says which install works there."""
MODEL_CONTAINER: Final = "model"
"""Name of the container that runs the model server in a serving pod."""


def short_hash(text: str, length: int = HASH_LENGTH) -> str:
    """Return the lower-case base32 of the sha256 of `text`, cut to `length` characters (5 bits each, at most 52)."""
    return base64.b32encode(hashlib.sha256(text.encode()).digest()).decode().lower()[:length]


def content_hash(value: Any, length: int = HASH_LENGTH) -> str:
    """Hash a JSON value, independent of the order of keys.

    Raises TypeError when `value` holds something JSON has no form for, and ValueError for NaN or infinity.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return short_hash(text, length)


def label_value(name: str) -> str:
    """Return `name` as a label value: itself up to 63 characters, else its start, an underscore and a hash.

    No Kubernetes object name contains an underscore, so a cut value never equals another object's uncut one.
    """
    if len(name) <= LABEL_VALUE_MAX:
        return name
    return f"{name[: LABEL_VALUE_MAX - HASH_LENGTH - 1].rstrip('-._')}_{short_hash(name)}"


def cut_with_hash(prefix: str, limit: int, *identity: str, length: int = HASH_LENGTH) -> str:
    """`<prefix cut>-<hash of identity>`, a DNS label of at most `limit` characters when `prefix` begins as one.

    The hash is always there, so two names differ whenever their identities do, wherever the prefix is cut.
    """
    kept = prefix.replace(".", "-")[: limit - length - 1].rstrip("-")
    return f"{kept}-{short_hash(chr(0).join(identity), length)}"


def revision_name(model: str, revision: str) -> str:
    """Return the name of everything that belongs to one revision: ControllerRevision, Deployment, Service, PDB, HPA."""
    return f"{model}-{revision}"


def comparer_name(model: str) -> str:
    """Return the name of the Deployment and Service of the comparer, which runs during mirror steps."""
    return f"{model}-comparer"


def observer_name(model: str) -> str:
    """Return the name of the Deployment and Service of the drift monitor."""
    return f"{model}-observer"


def stamped_version_name(model: str, content: Any) -> str:
    """Return the name of the ModelVersion created from `spec.version.template`: the Model's name and a content hash."""
    return f"{model}-{content_hash(content)}"


def resolve_pod_name(version: str, uid: str) -> str:
    """Return the name of the pod that resolves the digest of this ModelVersion; at most 57 characters."""
    kept = version.replace(".", "-")[:40].rstrip("-")
    return f"{kept}-resolve-{short_hash(f'{version}{chr(0)}{uid}', 8)}"


def child_labels(*, role: str, model: str, version: str, revision: str | None = None) -> dict[str, str]:
    """Return the labels of a child object; `version` is the full name of the ModelVersion and is cut here."""
    labels = {
        LABEL_MANAGED_BY: MANAGED_BY,
        LABEL_MODEL: label_value(model),
        LABEL_VERSION: label_value(version),
        LABEL_ROLE: role,
    }
    if revision is not None:
        labels[LABEL_REVISION] = revision
    return labels


def model_labels(model: str) -> dict[str, str]:
    """Return the labels of a child of the whole Model, independent of revisions: its Service and its route."""
    return {LABEL_MANAGED_BY: MANAGED_BY, LABEL_MODEL: label_value(model)}


def revision_selector(model: str, revision: str) -> dict[str, str]:
    """Return the labels that select exactly the pods of one revision."""
    return {LABEL_MODEL: label_value(model), LABEL_REVISION: revision}
