"""RetrainingPolicy: when a Model is retrained, the limits on that, and the stages of a run."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Literal

from pydantic import Field, StringConstraints

from modelwright.api.cel import Cel, Cut, ListType, NamedObject
from modelwright.api.common import (
    INT64_MAX,
    MAX_POLICY_BYTES,
    QUALIFIED_NAME,
    Bool,
    Decimal,
    Label,
    LabelValue,
    LocalObjectReference,
    OpenObject,
    Resource,
    ShortStatusText,
    StatusInt,
    StatusText,
    StatusWire,
    Text253,
    Timestamp,
    Wire,
    changed_by_field,
)
from modelwright.api.conditions import Conditions
from modelwright.api.crd_info import AGE_COLUMN, READY_COLUMN, REASON_COLUMN, Column, CrdInfo
from modelwright.api.v1alpha1.policy import (
    Cron,
    Deadline,
    EvaluationMetric,
    History,
    PromQL,
    TimeZone,
    Wait,
    duration_between,
    max_figures_rule,
)
from modelwright.api.v1alpha1.version import (
    AccountName,
    ArtifactUri,
    Card,
    Code,
    Digest,
    ModelFormat,
    Parameters,
    Sample,
    StoreSecretRef,
)

PROFILES = ("TrainJob", "JobSet", "RayJob", "Workflow", "SparkApplication")
"""Kinds whose states the `resource` engine can read without expressions."""

Profile = Literal["TrainJob", "JobSet", "RayJob", "Workflow", "SparkApplication"]
Expression = Annotated[str, StringConstraints(strict=True, min_length=1, max_length=1024)]


class ScheduleTrigger(Wire):
    """Fires at the times of a cron schedule."""

    cron: Cron = Field(description='Five fields, such as "0 3 * * 1".')
    time_zone: TimeZone = Field(default="UTC", description="Its time zone, by IANA name, such as Europe/Berlin.")
    catch_up: Literal["None", "Latest", "All"] = Field(
        default="Latest",
        description="Times missed while the operator was down: None skips them, Latest starts a run for the last one, "
        "All for each, at most 100, in order.",
    )


class PrometheusTrigger(Wire):
    """Fires when a query is beyond a limit in several consecutive measurements."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.above) != has(self.below)",
            "a prometheus trigger needs exactly one of above and below",
            lambda self: (self.above is None) != (self.below is None),
        ),
    )

    provider: Label = Field(default="default", description="Name of a connection in the operator's configuration.")
    query: PromQL = Field(
        description="PromQL that gives one number. $(NAMESPACE), $(MODEL) and $(VERSION) (the serving one) are filled "
        "in."
    )
    above: Decimal | None = Field(default=None, description="It fires when the value is above this.")
    below: Decimal | None = Field(default=None, description="It fires when the value is below this.")
    consecutive: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=3,
        description="Consecutive measurements beyond the limit, 1 to 100. One without a value (no data, NaN, an error) "
        "does not count and resets the count.",
    )
    interval: Annotated[str, *duration_between("5s", "24h")] = Field(
        default="5m", description="Time between measurements, 5s to 24h."
    )


class DataTrigger(Wire):
    """Fires when data at an address has changed. A CronJob checks it under the ServiceAccount named here."""

    uri: ArtifactUri = Field(description="Address of a file or prefix: s3, gs, az, http(s) or pvc.")
    changed: Literal["ETag", "Digest", "Count"] = Field(
        default="ETag",
        description="Compared property: ETag (and size) of all objects, the digest of the content (which is read), or "
        "the number of objects.",
    )
    every: Annotated[str, *duration_between("1m", "24h")] = Field(
        default="10m",
        description="Time between checks: 1, 2, 3, 4, 5, 6, 10, 12, 15, 20 or 30 minutes, or 1, 2, 3, 4, 6, 8, 12 or "
        "24 "
        "hours.",
    )
    service_account_name: AccountName | None = Field(
        default=None, description="ServiceAccount of the pod that checks. When absent, `default`."
    )
    credentials_secret_ref: StoreSecretRef | None = Field(
        default=None, description="Secret with the credentials of the store, as for a ModelVersion's artifact."
    )


class WebhookTrigger(Wire):
    """Fires when another system reports it: POST /triggers/<namespace>/<policy>/<trigger> of the operator's Service,
    with a token of a ServiceAccount or user that has the verb `trigger` on this RetrainingPolicy."""

    source: Literal["Alertmanager", "CloudEvents"] = Field(
        description="Alertmanager: firing alerts, one run for each alert and the time it began. CloudEvents: one run "
        "for each source and id."
    )
    labels: Annotated[
        dict[str, Annotated[str, StringConstraints(strict=True, max_length=253)]], Field(max_length=16)
    ] = Field(
        default_factory=dict,
        description="Labels that an alert, or attributes that a CloudEvent must have, with these values. At most 16.",
    )


class AgeTrigger(Wire):
    """Fires when the serving version has served for some time."""

    after: Annotated[str, *duration_between("1m", "17520h")] = Field(
        description="Time since it began to serve, 1m to 17520h; fires again after each such time."
    )


def _has_one_trigger_kind(trigger: Trigger) -> bool:
    kinds = (trigger.schedule, trigger.prometheus, trigger.data, trigger.webhook, trigger.age)
    return sum(kind is not None for kind in kinds) == 1


class Trigger(Wire):
    """One reason to train: exactly one of schedule, prometheus, data, webhook and age."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "[has(self.schedule), has(self.prometheus), has(self.data), has(self.webhook), has(self.age)]"
            ".filter(set, set).size() == 1",
            "a trigger has exactly one of schedule, prometheus, data, webhook and age",
            _has_one_trigger_kind,
        ),
    )

    name: Label = Field(description="Name of the trigger, in this policy.")
    schedule: ScheduleTrigger | None = Field(default=None, description="Fires at the times of a cron schedule.")
    prometheus: PrometheusTrigger | None = Field(default=None, description="Fires when a query is beyond a limit.")
    data: DataTrigger | None = Field(default=None, description="Fires when data has changed.")
    webhook: WebhookTrigger | None = Field(default=None, description="Fires when another system reports it.")
    age: AgeTrigger | None = Field(default=None, description="Fires when the serving version has reached an age.")


class MaxRuns(Wire):
    """Limit on the runs in a span of time."""

    count: Annotated[int, Field(strict=True, ge=1, le=1000)] = Field(description="Runs, 1 to 1000.")
    per: Annotated[str, *duration_between("1m", "8760h")] = Field(
        description="Span of time that ends now, 1m to 8760h."
    )


class Backoff(Wire):
    """Wait of triggers after consecutive failures: initial, then twice as long after each further one."""

    initial: Annotated[str, *duration_between("1s", "720h")] = Field(
        default="10m", description="After the first failure, 1s to 720h."
    )
    max: Annotated[str, *duration_between("1s", "8760h")] = Field(
        default="24h", description="Longest wait, 1s to 8760h."
    )


class Guard(Wire):
    """Limits on triggers. A run that a person requests waits only for its turn."""

    cooldown: Annotated[str, *duration_between("0s", "8760h")] = Field(
        default="24h", description="Shortest time from the start of a run to the start of the next, 0s to 8760h."
    )
    max_runs: MaxRuns | None = Field(
        default=None, description="Limit on the runs in a span of time. When absent, none."
    )
    concurrency: Literal["Forbid", "Queue", "Replace"] = Field(
        default="Forbid",
        description="While a run is active: Forbid suppresses a trigger, Queue lets one wait for the end of the run, "
        "Replace ends the active run.",
    )
    backoff: Backoff = Field(
        default_factory=Backoff,
        description="Wait after consecutive runs that failed, or whose version was refused or not promoted.",
    )
    skip_unchanged: Bool = Field(
        default=True,
        description="Whether a run ends as Skipped, before it trains, when dataset (by digest), parameters, seed and "
        "templates are those of the last run that succeeded.",
    )


class DatasetSource(Wire):
    """Data that a run works on."""

    uri: ArtifactUri = Field(description="Address of a file or prefix, by the schemes of artifacts.")
    digest: Digest | None = Field(
        default=None,
        description="Digest that it must have. When absent, it is determined at the start of each run, and the "
        "content must not change until the run ends.",
    )
    service_account_name: AccountName | None = Field(
        default=None, description="ServiceAccount of the pod that determines the digest. When absent, `default`."
    )
    credentials_secret_ref: StoreSecretRef | None = Field(
        default=None, description="Secret with the credentials of the store, as for a ModelVersion's artifact."
    )


class JobWork(Wire):
    """A Job of batch/v1."""

    template: Annotated[OpenObject, NamedObject("PodTemplate")] = Field(
        description="Pod template of the Job (spec.template). Inputs and results: the how-to on training."
    )
    backoff_limit: Annotated[int, Field(strict=True, ge=0, le=10)] = Field(
        default=1, description="Tries after a failed one, 0 to 10."
    )
    pod_failure_policy: Annotated[OpenObject, NamedObject("Nothing", why="conditions and exit codes")] | None = Field(
        default=None, description="spec.podFailurePolicy of the Job, such as to let evicted pods not count."
    )
    labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=16),
        Cel(
            f"self.all(key, key.matches(r'{QUALIFIED_NAME}') && !key.startsWith('modelwright.dev/') && "
            "!key.startsWith('app.kubernetes.io/'))",
            "keys must be label names, and none of modelwright.dev/ or app.kubernetes.io/",
            lambda value: all(not key.startswith(("modelwright.dev/", "app.kubernetes.io/")) for key in value),
        ),
    ] = Field(
        default_factory=dict,
        description="Labels of the Job, such as kueue.x-k8s.io/queue-name. At most 16.",
    )


def _has_state_source(work: ResourceWork) -> bool:
    return work.profile is not None or (work.success is not None and work.failure is not None)


class ResourceWork(Wire):
    """Any other object, of a kind that the operator's configuration allows. States are read by a profile, or by
    expressions in CEL over `object` (the live object)."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.profile) || (has(self.success) && has(self.failure))",
            "a resource needs a profile, or the expressions success and failure",
            _has_state_source,
        ),
    )

    manifest: Annotated[OpenObject, NamedObject("Manifest")] = Field(
        description="The object: apiVersion, kind and spec; name, namespace and owner are set here. In its texts "
        "$(RUN), $(MODEL), $(OUTPUT_URI), $(DATASET_URI), $(DATASET_DIGEST), $(SEED) and $(INPUTS) (all of the inputs "
        "as JSON) are filled in."
    )
    profile: Profile | None = Field(
        default=None, description="Reads the states of a known kind: " + ", ".join(PROFILES) + "."
    )
    success: Expression | None = Field(default=None, description="True when it has ended well.")
    failure: Expression | None = Field(default=None, description="True when it has failed.")
    suspended: Expression | None = Field(default=None, description="True while it is suspended or queued.")
    message: Expression | None = Field(default=None, description="A text that says why.")
    outputs: Expression | None = Field(
        default=None,
        description="The result: a map, or a text with JSON. When absent, the termination message of the pods that "
        "podSelector (or the profile) finds.",
    )
    pod_selector: Annotated[str, StringConstraints(strict=True, min_length=1, max_length=512)] | None = Field(
        default=None, description="Label selector of its pods; $(NAME) is the object's name."
    )

    @property
    def expressions(self) -> tuple[str, ...]:
        """The expressions that are set."""
        expressions = (self.success, self.failure, self.suspended, self.message, self.outputs)
        return tuple(expression for expression in expressions if expression is not None)


class Work(Wire):
    """The object that runs a stage: exactly one of job and resource."""

    __cel__: ClassVar[tuple[Cel, ...]] = (
        Cel(
            "has(self.job) != has(self.resource)",
            "a stage needs exactly one of job and resource",
            lambda self: (self.job is None) != (self.resource is None),
        ),
    )

    job: JobWork | None = Field(default=None, description="A Job.")
    resource: ResourceWork | None = Field(default=None, description="Any other object, such as a TrainJob.")
    timeout: Wait = Field(
        default="1h", description="Time for the stage, 1s to 720h; what is suspended or queued doesn't count."
    )


class DataCheck(Work):
    """Checks the dataset before training."""

    data_schema: Annotated[OpenObject, NamedObject("Nothing", why="the schema of data")] | None = Field(
        default=None,
        alias="schema",
        description="Schema of the dataset, passed to the check unchanged; the how-to on training describes the form "
        "that the shipped image reads.",
    )


class Evaluate(Work):
    """Scores the new version and the serving one on the same data, held out from both."""

    __cel__: ClassVar[tuple[Cel, ...]] = (*Work.__cel__, max_figures_rule("gates"))

    gates: Annotated[tuple[EvaluationMetric, ...], Field(min_length=1, max_length=32), ListType("map", ("name",))] = (
        Field(
            description="Figures with their limits, 1 to 32; with all slices together at most 32. A figure that is "
            "missing in the report fails."
        )
    )
    on_inconclusive: Literal["Fail", "Register"] = Field(
        default="Fail",
        description="Reaction when the figures prove neither that the limits hold nor that they do not: Fail ends the "
        "run without a version, Register registers the version and leaves the decision to the Model's RolloutPolicy.",
    )


class Output(Wire):
    """Address of trained versions, and the access to it."""

    uri: ArtifactUri = Field(
        description="Prefix below which the training puts the artifact: <uri>/<name of the run>. A result that names "
        "another place is refused."
    )
    format: ModelFormat = Field(description="Format of the model, unless the result names one.")
    service_account_name: AccountName | None = Field(
        default=None, description="spec.artifact.serviceAccountName of the ModelVersion."
    )
    credentials_secret_ref: StoreSecretRef | None = Field(
        default=None, description="spec.artifact.credentialsSecretRef of the ModelVersion."
    )


TRACKING_DOMAINS = (
    "app[.]kubernetes[.]io",
    "argocd[.]argoproj[.]io",
    "toolkit[.]fluxcd[.]io",
    "fluxcd[.]io",
    "helm[.]sh",
    "kustomize[.]k8s[.]io",
    "kapp[.]k14s[.]io",
    "config[.]k8s[.]io",
    "applyset[.]kubernetes[.]io",
    "modelwright[.]dev",
)
"""Prefixes, and what is below them, of labels that say who has made an object: a tool prunes what carries its own."""

_TRACKING = re.compile(f"([^/]*[.])?({'|'.join(TRACKING_DOMAINS)})/")
_NAME = re.compile(QUALIFIED_NAME)
_NO_TRACKING = (
    "keys must be label names, and none of modelwright.dev/, app.kubernetes.io/ or of a tool that prunes by its labels "
    "(Argo CD, Flux, Helm, kustomize, kapp)"
)


class TrainedVersionTemplate(Wire):
    """Fields of a run's ModelVersion that do not come from its result."""

    labels: Annotated[
        dict[str, LabelValue],
        Field(max_length=16),
        Cel(
            f"self.all(key, key.matches(r'{QUALIFIED_NAME}') && "
            f"!key.matches(r'^([^/]*[.])?({'|'.join(TRACKING_DOMAINS)})/'))",
            _NO_TRACKING,
            lambda value: all(_NAME.fullmatch(key) and not _TRACKING.match(key) for key in value),
        ),
    ] = Field(
        default_factory=dict,
        description="Labels of the ModelVersion, such as those that spec.version.follow.selector of a Model asks for. "
        "At most 16, and none by which a tool finds what it has made and prunes it.",
    )
    samples: Annotated[tuple[Sample, ...], Field(max_length=16), ListType("atomic")] = Field(
        default=(), description="Requests for the infra gate of its rollout, at most 16."
    )
    card: Card | None = Field(default=None, description="Model card of the version.")
    code: Code | None = Field(default=None, description="The code that trains it, unless the result says so.")


class RunTemplate(Wire):
    """Stages of a run: data check, training, evaluation, registration."""

    dataset: DatasetSource = Field(description="Training data.")
    holdout: DatasetSource | None = Field(
        default=None,
        description="Evaluation data. When absent, the dataset, of which the training holds back a part.",
    )
    parameters: Parameters = Field(
        default_factory=dict, description="Handed to each stage. At most 128, of 1024 characters."
    )
    seed: Annotated[int, Field(strict=True, ge=0, le=4294967295)] = Field(
        default=0, description="Handed to each stage, for all that is random."
    )
    data_check: DataCheck | None = Field(default=None, description="Checks the dataset first.")
    train: Work = Field(description="Trains the model and writes the artifact below output.uri.")
    evaluate: Evaluate | None = Field(
        default=None, description="Decides whether the new version is registered. When absent, it always is."
    )
    output: Output = Field(description="Address of the artifact.")
    version: TrainedVersionTemplate = Field(
        default_factory=TrainedVersionTemplate,
        description="Fields of the ModelVersion that do not come from the result.",
    )
    deadline: Deadline = Field(
        default="24h", description="Time for the whole run, 1s to 720h; what is suspended or queued doesn't count."
    )


class RetrainingPolicySpec(Wire):
    """Triggers, limits on them, and the stages of a run."""

    model_ref: LocalObjectReference = Field(description="The Model to retrain.")
    suspend: Bool = Field(default=False, description="Suspends all triggers; an active run is not affected.")
    triggers: Annotated[tuple[Trigger, ...], Field(max_length=16), ListType("map", ("name",))] = Field(
        default=(), description="Reasons to train, at most 16. When absent, runs start only on request."
    )
    guard: Guard = Field(default_factory=Guard, description="Limits on triggers.")
    run: RunTemplate = Field(description="Stages of a run.")
    history_limit: Annotated[int, Field(strict=True, ge=1, le=100)] = Field(
        default=10, description="Ended TrainingRuns kept, 1 to 100."
    )
    history_ttl: History = Field(
        default="168h", alias="historyTTL", description="How long ended TrainingRuns outlive the policy, 0s to 8760h."
    )
    changed_by: Text253 | None = changed_by_field("modelRef or run")


class TriggerStatus(StatusWire):
    """The last event of a trigger."""

    name: ShortStatusText = Field(description="Name of the trigger.")
    identity: ShortStatusText | None = Field(
        default=None,
        description="Identity of the last event: the time of a schedule, the state of the data, an alert, a number.",
    )
    at: Timestamp | None = Field(default=None, description="When it last fired, UTC.")
    outcome: Annotated[str, Cut(63)] | None = Field(
        default=None, description="Started, Queued, Replaced, or the reason why it was suppressed."
    )
    run: ShortStatusText | None = Field(default=None, description="The run it started.")
    schedule: ShortStatusText | None = Field(
        default=None, description="Cron and time zone of a schedule, to detect edits."
    )
    since: Timestamp | None = Field(
        default=None, description="When the schedule was added or edited, UTC: earlier times are not caught up."
    )


class SuppressedStatus(StatusWire):
    """Triggers that started no run, by reason."""

    trigger: ShortStatusText = Field(description="Name of the trigger.")
    reason: Annotated[str, Cut(63)] = Field(description="Why, as one of the documented reasons.")
    count: StatusInt = Field(description="Number of times.")
    last_at: Timestamp = Field(description="When it was last suppressed, UTC.")
    message: StatusText = Field(default="", description="Why, as text; of the last time.")


class RetrainingPolicyStatus(StatusWire):
    """State of triggers and runs."""

    observed_generation: int | None = Field(
        default=None, ge=0, le=INT64_MAX, description="metadata.generation that this status is about."
    )
    triggers: Annotated[tuple[TriggerStatus, ...], Field(max_length=16), ListType("map", ("name",))] = Field(
        default=(), description="Last event of each trigger. At most 16."
    )
    suppressed: Annotated[
        tuple[SuppressedStatus, ...], Field(max_length=128), ListType("map", ("trigger", "reason"))
    ] = Field(default=(), description="Triggers that started no run, by reason. At most 128.")
    active_run: ShortStatusText | None = Field(default=None, description="The active run.")
    last_run: ShortStatusText | None = Field(default=None, description="The run that ended last.")
    last_version: ShortStatusText | None = Field(default=None, description="The ModelVersion that was registered last.")
    failures: StatusInt | None = Field(default=None, description="Consecutive failed runs.")
    retry_at: Timestamp | None = Field(default=None, description="Until when triggers wait because of them, UTC.")
    conditions: Conditions = Field(default=(), description="Ready, Reconciling and Stalled, as kstatus defines them.")


class RetrainingPolicy(Resource):
    """Policy for retraining a Model: triggers, limits and stages."""

    __spec_bytes__: ClassVar[int | None] = MAX_POLICY_BYTES
    __crd__: ClassVar[CrdInfo] = CrdInfo(
        plural="retrainingpolicies",
        short_name="rtp",
        description="A RetrainingPolicy defines when a Model is retrained (schedule, drift, new data, alerts, age), "
        "the "
        "limits on that, and the stages of a run: check the data, train, evaluate, register a ModelVersion.",
        columns=(
            Column("Model", ".spec.modelRef.name", "The Model to retrain."),
            Column("Suspended", ".spec.suspend", "Whether triggers are suspended.", type="boolean", wide=True),
            Column("Active", ".status.activeRun", "The active run."),
            Column("Last", ".status.lastRun", "The run that ended last."),
            Column("Version", ".status.lastVersion", "The ModelVersion that was registered last."),
            Column("Failures", ".status.failures", "Consecutive failed runs.", type="integer"),
            READY_COLUMN,
            REASON_COLUMN,
            AGE_COLUMN,
        ),
        selectable_fields=(".spec.modelRef.name",),
        name_max=40,
    )

    kind: str = "RetrainingPolicy"
    spec: RetrainingPolicySpec = Field(description="Triggers, limits on them, and the stages of a run.")
    status: RetrainingPolicyStatus = Field(
        default_factory=RetrainingPolicyStatus, description="State of triggers and runs."
    )
