"""ModelVersion: one immutable version of a Model: artifact, digest, format, metrics, lineage and card."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, Cut, ListType, NamedObject
from modelwright.api.common import (
    INT64_MAX,
    MAX_AUTHORS,
    Decimal,
    LocalObjectReference,
    OpenObject,
    Resource,
    ShortStatusText,
    StatusText,
    StatusWire,
    Subdomain,
    Text63,
    Text253,
    Text1024,
    Text4096,
    Wire,
    pattern_rule,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, READY_COLUMN, REASON_COLUMN, Column, CrdInfo

SCHEMES = ("s3", "gs", "az", "http", "https", "pvc", "oci", "hf")
"""Schemes of artifact addresses that the fetch image understands."""

_SCHEME_MESSAGE = (
    "unknown scheme: use one of s3://bucket/path, gs://bucket/path, az://account/container/path, http://, https://, "
    "pvc://claim[/path], oci://registry/repository[:tag|@sha256:...], hf://organisation/name[@revision]"
)
_SHAPES = (
    ("s3|gs", r"^(s3|gs)://[a-z0-9][-a-z0-9._]{1,220}[a-z0-9]/[^?#]+$", "bucket and path: <scheme>://<bucket>/<path>"),
    (
        "az",
        r"^az://[a-z0-9]{3,24}/[-a-z0-9$]{3,63}/[^?#]+$",
        "account, container and path: az://<account>/<container>/<path>",
    ),
    ("https?", r"^https?://[^/?#@]+(/[^#]*)?$", "a host and no user or password: https://<host>[:<port>]/<path>"),
    ("pvc", r"^pvc://[a-z0-9][-a-z0-9.]*(/[^?#]*)?$", "a claim, or claim and path: pvc://<claim>[/<path>]"),
    (
        "oci",
        r"^oci://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[a-z0-9][a-z0-9._/-]*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$",
        "registry and repository: oci://<registry>/<repository>[:<tag>|@sha256:<64 hex digits>]",
    ),
    (
        "hf",
        r"^hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9][A-Za-z0-9._/-]*)?$",
        "organisation and name: hf://<organisation>/<name>[@<revision>]",
    ),
)


def _shape_rule(schemes: str, pattern: str, shape: str) -> Cel:
    """Return a rule that an address with one of these schemes matches `pattern`; other schemes pass."""
    prefix, whole = re.compile(f"({schemes})://"), re.compile(pattern.removeprefix("^").removesuffix("$"))
    return Cel(
        f"!self.matches(r'^({schemes})://') || self.matches(r'{pattern}')",
        f"needs {shape}",
        lambda value: not prefix.match(value) or whole.fullmatch(value) is not None,
    )


_ANY_SCHEME = re.compile(f"({'|'.join(SCHEMES)})://")
_SHAPE_RULES = tuple(_shape_rule(*row) for row in _SHAPES)
_NO_PARENT = re.compile(r"(^|/)\.\.(/|$)")

ArtifactUri = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=2048, pattern=r"^[!-~]+$"),
    Cel(
        f"self.matches(r'^({'|'.join(SCHEMES)})://')",
        _SCHEME_MESSAGE,
        lambda value: _ANY_SCHEME.match(value) is not None,
    ),
    *_SHAPE_RULES,
    Cel(
        r"!self.matches(r'(^|/)\.\.(/|$)')",
        "the path may not hold '..'",
        lambda value: _NO_PARENT.search(value) is None,
    ),
    NamedObject("Claim", pvc=True),
]
Digest = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=71),
    pattern_rule(
        r"^(sha256:[0-9a-f]{64}|git:[0-9a-f]{40})$",
        "must be sha256: and 64 lower-case hex digits, or git: and 40 (a Hugging Face commit)",
    ),
]
FormatName = Annotated[
    str, StringConstraints(strict=True, min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9_.]*[a-z0-9])?$")
]
FormatVersion = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=32, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.+]*[A-Za-z0-9])?$"),
]


MAX_PATTERNS = 32
_DOT_SEGMENT = r"(^|/)\.\.?(/|$)"
_HAS_DOTS = re.compile(_DOT_SEGMENT)


def _no_dots_rule(subject: str) -> Cel:
    return Cel(
        f"!self.matches(r'{_DOT_SEGMENT}')",
        f"{subject} may not hold a segment '.' or '..'",
        lambda value: _HAS_DOTS.search(value) is None,
    )


ArtifactPath = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=1024, pattern=r"^[^\\\x00-\x1f\x7f]+$"),
    pattern_rule(
        r"^[^/]+(/[^/]+)*$",
        "must be relative, such as models/digits: no slash at its beginning or end, and no two in a row",
    ),
    _no_dots_rule("the path"),
]
FilePattern = Annotated[
    str,
    StringConstraints(strict=True, min_length=1, max_length=128, pattern=r"^[^/\\\x00-\x1f\x7f][^\\\x00-\x1f\x7f]*$"),
    _no_dots_rule("a pattern"),
]
"""Bounded as in fetch: the cost of a pattern grows with its length and that of the file's name."""
FilePatterns = Annotated[tuple[FilePattern, ...], Field(max_length=MAX_PATTERNS), ListType("atomic")]
"""Atomic: in a set, the rule that the artifact is immutable would allow changes of the order, which is hashed."""


AccountName = Annotated[Subdomain, NamedObject("ServiceAccount")]
StoreSecretRef = Annotated[LocalObjectReference, NamedObject("Secret", beside=("uri",))]
"""A Secret that is used at the address of the same object."""


class ModelFormat(Wire):
    """Format of the model; runtimes are chosen by it."""

    name: FormatName = Field(description="Format as runtimes list it: sklearn, xgboost, lightgbm, onnx, ...")
    version: FormatVersion | None = Field(
        default=None,
        description='Version of the format, such as "1". When absent, any version a runtime lists will do.',
    )


class Artifact(Wire):
    """Address and digest of the version's content."""

    uri: ArtifactUri = Field(
        description="Address of the file, archive, prefix, image or repository. Schemes: " + ", ".join(SCHEMES) + "."
    )
    digest: Digest | None = Field(
        default=None,
        description="Digest of the content, checked at every start: sha256:<64 hex> or git:<40 hex>. When absent, it "
        "is determined once and pinned in status.artifact.digest before any pod serves.",
    )
    path: ArtifactPath | None = Field(
        default=None,
        description="The folder or file within the artifact that is the model, such as `models` of a modelcar image or "
        "the folder in which an archive was packed: nothing else of it is fetched or unpacked. The folder's content "
        "takes the artifact's place. When absent, all.",
    )
    include: FilePatterns | None = Field(
        default=None,
        description='Patterns of the files that are taken, such as "*.safetensors", compared with their path below '
        "`path`. They are huggingface_hub's allow_patterns: * stands for slashes too. When absent, all files. At most "
        f"{MAX_PATTERNS}, of 128 characters.",
    )
    exclude: FilePatterns | None = Field(
        default=None,
        description='Patterns of the files that are left out, such as "*.bin", as ignore_patterns of '
        f"huggingface_hub. At most {MAX_PATTERNS}, of 128 characters.",
    )
    format: ModelFormat = Field(description="Format of the model.")
    service_account_name: AccountName | None = Field(
        default=None,
        description="ServiceAccount of the pods that fetch the artifact, and of those that serve it unless the Model "
        "has spec.serving.serviceAccountName. When absent, `default`.",
    )
    credentials_secret_ref: (
        Annotated[LocalObjectReference, NamedObject("Secret", beside=("uri", "../reference/uri"))] | None
    ) = Field(
        default=None,
        description="Secret mounted into the fetch container: its keys are the credentials of the store. The operator "
        "never reads it. When absent, the identity of the pod's ServiceAccount is used.",
    )


class VersionMetric(Wire):
    """A figure measured for the version, outside the cluster or by a training run."""

    name: Text63 = Field(description="Name of the figure, such as accuracy.")
    value: Decimal = Field(description='The figure, a decimal number as text, such as "0.981".')
    dataset: Text253 = Field(description="Evaluation data, such as holdout-2026-10.")


class Dataset(Wire):
    """The data a version was trained on."""

    uri: Text1024 = Field(description="Address of the data.")
    digest: Text253 | None = Field(default=None, description="Digest of the data, such as sha256:<64 hex>.")


class Code(Wire):
    """The code that trained a version."""

    repository: Text1024 = Field(description="Address of the repository.")
    commit: Text253 = Field(description="Commit that was run.")


class Lineage(Wire):
    """Origin of a version."""

    dataset: Dataset | None = Field(default=None, description="The data it was trained on.")
    code: Code | None = Field(default=None, description="The code that trained it.")
    image: Annotated[Text1024, NamedObject("Nothing", why="a record: nothing runs it")] | None = Field(
        default=None, description="Image of the training container, best with its digest."
    )
    training_run: Text253 | None = Field(default=None, description="Name of the run that trained it.")
    parent: Subdomain | None = Field(default=None, description="Name of the ModelVersion it was derived from.")


class Card(Wire):
    """Model card: purpose and limits of a version. It may be changed at any time."""

    summary: Text4096 | None = Field(default=None, description="Summary of the model.")
    intended_use: Text4096 | None = Field(default=None, description="Intended purpose.")
    limitations: Text4096 | None = Field(default=None, description="Unsuitable uses, and known faults.")
    license: Text253 | None = Field(default=None, description="Licence, best as an SPDX identifier.")


Parameters = Annotated[
    dict[str, Annotated[str, StringConstraints(strict=True, max_length=1024)]],
    Field(max_length=128),
    Cel(
        "self.all(key, key.size() >= 1 && key.size() <= 128)",
        "names have 1 to 128 characters",
        lambda value: all(1 <= len(key) <= 128 for key in value),
    ),
]
VersionMetrics = Annotated[tuple[VersionMetric, ...], Field(max_length=64), ListType("map", ("name", "dataset"))]


class Sample(Wire):
    """A request that the version must be able to answer."""

    request: Annotated[OpenObject, NamedObject("Nothing", why="the body of a request")] = Field(
        description="Body of the request, JSON as the runtime's protocol wants it."
    )
    expect: Annotated[OpenObject, NamedObject("Nothing", why="compared with an answer")] | None = Field(
        default=None,
        description="Members that the response must contain, numbers to one part in a thousand. "
        "When absent, any answer with status 200 will do.",
    )


class ReferenceSample(Wire):
    """Reference sample that requests are compared with: one JSON file."""

    uri: ArtifactUri = Field(
        description='Address of the file, {"inputs": [[...], ...], "predictions": [...]}, at most 16 MiB; it is '
        "fetched with the artifact's credentials."
    )
    digest: Digest | None = Field(
        default=None,
        description="Digest of the file, checked when it is fetched. When absent, it is not checked.",
    )


class VersionContent(Wire):
    """Content of a version, in a ModelVersion or in a template of a Model."""

    artifact: Artifact = Field(description="Address and digest of the content.")
    parameters: Parameters = Field(
        default_factory=dict, description="Hyperparameters it was trained with. At most 128, of 1024 characters."
    )
    metrics: VersionMetrics = Field(
        default=(), description="Figures measured for it, one for each name and dataset. At most 64."
    )
    samples: Annotated[tuple[Sample, ...], Field(max_length=16), ListType("atomic")] = Field(
        default=(), description="Requests for the infra gate of a rollout, at most 16. Immutable."
    )
    reference: ReferenceSample | None = Field(
        default=None,
        description="Sample of inputs and predictions that spec.monitoring of a Model measures drift from. Immutable.",
    )
    lineage: Lineage | None = Field(default=None, description="Origin of the version.")
    card: Card | None = Field(default=None, description="Model card: its purpose and limits.")


def _immutable_rule(field: str, *, optional: bool) -> Cel:
    """Return a rule that this member of a spec keeps its initial value."""
    same = f"self.{field} == oldSelf.{field}"
    rule = f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {same})" if optional else same
    return Cel(
        rule, f"spec.{field} is immutable: create another ModelVersion for other content", field_path=f".{field}"
    )


class ModelVersionSpec(VersionContent):
    """Content of the version. Immutable, except for the card and added metrics."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        _immutable_rule("modelRef", optional=False),
        _immutable_rule("author", optional=True),
        _immutable_rule("authors", optional=True),
        _immutable_rule("artifact", optional=False),
        _immutable_rule("parameters", optional=True),
        _immutable_rule("lineage", optional=True),
        _immutable_rule("samples", optional=True),
        _immutable_rule("reference", optional=True),
        Cel(
            "!has(oldSelf.metrics) || "
            "(has(self.metrics) && oldSelf.metrics.all(old, self.metrics.exists(new, new == old)))",
            "spec.metrics may be added to; an entry is never changed or removed",
            field_path=".metrics",
        ),
    )

    model_ref: LocalObjectReference = Field(description="The Model this is a version of. Immutable.")
    author: Text253 | None = Field(
        default=None,
        description="Author of the version, as the API server knows them. Admission demands the writer's own name, "
        "unless the writer has the verb `attribute` on the Model. Immutable.",
    )
    authors: Annotated[tuple[Text253, ...], Field(max_length=MAX_AUTHORS - 1), ListType("set")] = Field(
        default=(),
        description="Further authors, such as those who have changed the training; the operator sets them for the "
        f"versions it trains. Admission demands the same as for author. Immutable. At most {MAX_AUTHORS - 1}.",
    )

    @property
    def all_authors(self) -> tuple[str, ...]:
        """All names in author and authors, each once."""
        return tuple(dict.fromkeys((*([self.author] if self.author is not None else []), *self.authors)))


class Stage(StrEnum):
    """Finding of a rollout about a version. The Model's status says which version serves, so that a version that starts
    or stops serving needs no write."""

    REJECTED = "Rejected"
    QUARANTINED = "Quarantined"


class ArtifactStatus(StatusWire):
    """The content that this version is pinned to."""

    digest: ShortStatusText = Field(description="Digest that is checked at every start of a pod.")
    size_bytes: int | None = Field(default=None, ge=0, le=INT64_MAX, description="Size of the content, in bytes.")
    tree: ShortStatusText | None = Field(
        default=None,
        description="Digest of the files that a pod gets, where `digest` is of something else: an archive, a manifest, "
        "a commit. Determined only for a Model whose shared cache is verified in full.",
    )
    cached: ShortStatusText | None = Field(
        default=None,
        description="Claim of the shared cache that a separate pod last copied it to; absent unless the Model "
        "has spec.serving.serviceAccountName.",
    )


class SignatureStatus(StatusWire):
    """Result of the signature check of the content."""

    digest: ShortStatusText = Field(description="Digest of the content that this is about.")
    keys: ShortStatusText = Field(
        description="Hash of the key that has signed it; when it is not verified, of all keys that were tried."
    )
    verified: bool = Field(description="Whether one of the Model's keys has signed exactly this content.")
    reason: Annotated[str, Cut(63)] = Field(description="SignatureVerified, SignatureMissing or SignatureInvalid.")
    message: StatusText = Field(default="", description="The result, as text.")


class VersionFailure(StatusWire):
    """Problem that prevents the use of the version."""

    reason: Annotated[str, Cut(63)] = Field(description="One of the documented reasons.")
    message: StatusText = Field(default="", description="The problem and its remedy, as text.")


class ModelVersionStatus(StatusWire):
    """Observed state of the version."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    artifact: ArtifactStatus | None = Field(default=None, description="The content this version is pinned to.")
    signature: SignatureStatus | None = Field(
        default=None,
        description="Result of the signature check; absent unless the Model has spec.signatures.",
    )
    stage: Annotated[str, Cut(63)] | None = Field(
        default=None,
        description="Rejected (a gate or a person refused it) or Quarantined (a rollout to it was rolled "
        "back after a finding against it, or a person aborted it); absent otherwise. Which version serves is in the "
        "status of the Model.",
    )
    failure: VersionFailure | None = Field(
        default=None, description="Problem that prevents its use; absent without one."
    )
    conditions: Conditions = Field(
        default=(),
        description="Ready, Reconciling and Stalled, as kstatus defines them, and, with spec.signatures of the Model, "
        "Verified.",
    )


class ModelVersion(Resource):
    """One immutable version of a Model."""

    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="modelversions",
        short_name="mv",
        description="A ModelVersion is one immutable version of a Model: its artifact and digest, format, metrics, "
        "lineage and card.",
        columns=(
            Column("Model", ".spec.modelRef.name", "The Model this is a version of."),
            Column("Format", ".spec.artifact.format.name", "Format of the artifact."),
            Column("Stage", ".status.stage", "Rejected or Quarantined; empty otherwise."),
            Column("Digest", ".status.artifact.digest", "Digest of the content it is pinned to.", wide=True),
            READY_COLUMN,
            REASON_COLUMN,
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.modelRef.name", ".status.stage"),
    )

    kind: str = "ModelVersion"
    spec: ModelVersionSpec = Field(
        description="Content of the version. Immutable, except for the card and added metrics."
    )
    status: ModelVersionStatus = Field(default_factory=ModelVersionStatus, description="Observed state.")
