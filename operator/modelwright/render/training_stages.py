"""Renders the children of TrainingRuns and RetrainingPolicies: the object of each stage, the pods that resolve digests
of data, and the CronJobs that poll data for changes."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from modelwright.api import names
from modelwright.api.common import LocalObjectReference, parse_duration
from modelwright.api.v1alpha1.retraining import (
    DataCheck,
    DatasetSource,
    DataTrigger,
    ResourceWork,
    RunTemplate,
    Trigger,
    Work,
)
from modelwright.api.v1alpha1.training import DatasetStatus
from modelwright.core.retraining.run_inputs import output_uri
from modelwright.render import fetch_container, helper_pod_placement, user_pod_template
from modelwright.render.child_metadata import owner_reference
from modelwright.render.gate_jobs import CANDIDATE_DIR, SERVING_DIR, EvaluatedContent, format_gated_figures
from modelwright.render.images import Images
from modelwright.render.strategic_merge import MergeError

Json = dict[str, Any]

DATASET_DIR: Final = "/mnt/modelwright/dataset"
HOLDOUT_DIR: Final = "/mnt/modelwright/holdout"
INPUTS_DIR: Final = "/mnt/modelwright/inputs"
INPUTS_FILE: Final = f"{INPUTS_DIR}/inputs.json"

CHILD_NAME_MAX: Final = 40
"""Controllers of other kinds append to the name (RayJob: at most 47; JobSet: job, index and pod)."""
INPUTS_BYTES: Final = 200_000
"""Kubernetes accepts 256 KiB of annotations on an object, the author's included."""
MANIFEST_BYTES: Final = 1 << 20
"""An object may have 1.5 MiB; its controller needs room for a status."""

_CRON_JOB_NAME_MAX = 52
_EVEN_MINUTES = (1, 2, 3, 4, 5, 6, 10, 12, 15, 20, 30, 60, 120, 180, 240, 360, 480, 720, 1440)
_POLL_SECONDS = {"ETag": 1800, "Count": 1800, "Digest": 86400}
_START_DEADLINE_SECONDS = 300
_INPUTS_VOLUME = "modelwright-inputs"
_NAME_PREFIXES = {"dataCheck": "check", "train": "train", "evaluate": "evaluate"}
_PLACEHOLDER = re.compile(r"\$\(([A-Z_]+)\)")


@dataclass(frozen=True, slots=True)
class StageInputs:
    """The inputs of a stage of a run.

    `dataset`, `holdout`: data with the digests at the start of this run. `serving`: the serving version. `candidate`:
    the version trained by the run, for the evaluation. `previous_profile`: the profile of the dataset from the data
    check of the previous run.
    """

    model: str
    template: RunTemplate
    parameters: Mapping[str, str]
    dataset: DatasetStatus
    images: Images
    holdout: DatasetStatus | None = None
    serving: EvaluatedContent | None = None
    candidate: EvaluatedContent | None = None
    previous_profile: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class _DataSource:
    """Data as a source to fetch."""

    uri: str
    service_account_name: str | None
    credentials_secret_ref: LocalObjectReference | None


def stage_name(run: Json, stage: str) -> str:
    """Return the name of the object that does `stage` (dataCheck, train or evaluate) of this very run, of any kind: a
    DNS label that starts with a letter, of at most CHILD_NAME_MAX characters."""
    name, uid = run["metadata"]["name"], run["metadata"]["uid"]
    return names.cut_with_hash(f"{_NAME_PREFIXES[stage]}-{name}", CHILD_NAME_MAX, name, uid, stage)


def stage_job(run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
    """Render the Job (batch/v1) of a stage with `work.job`, by the contract of the how-to on training.

    The author's pod template is kept; init containers that fetch data and artifacts precede it, and each container gets
    the variables, the directories and inputs.json, which the downward API writes from an annotation. Security contexts
    default to the restricted Pod Security Standard. The Job has no deadline: the operator measures the stage's time,
    which stops while it is suspended. Raises MergeError, naming the field of the policy.
    """
    if work.job is None:
        raise MergeError(f"spec.run.{stage}.job: must be given")
    path = f"spec.run.{stage}.job.template"
    contents = _stage_contents(stage, inputs)
    fetched = fetch_container.fetch_contents(contents, inputs.images, names.ROLE_TRAINING)
    source = {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.annotations['{names.ANNOTATION_INPUTS}']"}}
    fetched = replace(
        fetched,
        volumes=[
            *fetched.volumes,
            {"name": _INPUTS_VOLUME, "downwardAPI": {"items": [{"path": "inputs.json", **source}]}},
        ],
        mounts=[*fetched.mounts, {"name": _INPUTS_VOLUME, "mountPath": INPUTS_DIR, "readOnly": True}],
    )
    account = inputs.template.dataset.service_account_name or inputs.template.output.service_account_name
    spec = user_pod_template.merge_pod_spec(
        work.job.template,
        path,
        user_pod_template.default_pod_spec(inputs.images, account),
        _stage_variables(run, stage, inputs, contents),
        fetched,
    )
    labels = {**work.job.labels, **_run_labels(run, inputs.model)}
    metadata = user_pod_template.merge_metadata(work.job.template, path, labels)
    annotations = user_pod_template.typed_member(metadata, "annotations", dict, f"{path}.metadata")
    text = _format_inputs(run, stage, work, inputs, contents)
    policy = work.job.pod_failure_policy
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _run_metadata(run, stage_name(run, stage), labels),
        "spec": {
            "backoffLimit": work.job.backoff_limit,
            **({"podFailurePolicy": policy} if policy is not None else {}),
            "template": helper_pod_placement.place_template(
                {**metadata, "annotations": {**annotations, names.ANNOTATION_INPUTS: text}},
                spec,
                inputs.images,
                names.ROLE_TRAINING,
                work.job.template.get("spec"),
            ),
        },
    }


def stage_resource(run: Json, stage: str, work: Work, inputs: StageInputs) -> Json:
    """Render the object of a stage with `work.resource`: the author's manifest with our name, namespace, owner and
    labels, and $(RUN), $(MODEL), $(OUTPUT_URI), $(DATASET_URI), $(DATASET_DIGEST), $(SEED) and $(INPUTS) expanded in
    every string. Others, such as $(HOME), stay. Raises MergeError, naming the field of the policy."""
    if work.resource is None:
        raise MergeError(f"spec.run.{stage}.resource: must be given")
    path = f"spec.run.{stage}.resource.manifest"
    kind_of(work.resource, path)
    authored_metadata = user_pod_template.typed_member(work.resource.manifest, "metadata", dict, path)
    namespace = run["metadata"]["namespace"]
    if authored_metadata.get("namespace") not in (None, namespace):
        raise MergeError(f"{path}.metadata.namespace: must be {namespace}, the policy's own, or absent")
    for field in ("name", "generateName", "ownerReferences", "uid", "resourceVersion"):
        if authored_metadata.get(field):
            raise MergeError(f"{path}.metadata.{field}: is set by the operator; take it out")
    if "status" in work.resource.manifest:
        raise MergeError(f"{path}.status: is written by the object's controller; take it out")
    values = {
        "RUN": run["metadata"]["name"],
        "MODEL": inputs.model,
        "OUTPUT_URI": output_uri(inputs.template, run["metadata"]["name"]),
        "DATASET_URI": inputs.dataset.uri,
        "DATASET_DIGEST": inputs.dataset.digest,
        "SEED": str(inputs.template.seed),
        "INPUTS": _format_inputs(run, stage, work, inputs, {}),
    }
    manifest: Json = _fill_placeholders(work.resource.manifest, values)
    labels = user_pod_template.merge_metadata(manifest, path, _run_labels(run, inputs.model))["labels"]
    own_metadata = user_pod_template.typed_member(manifest, "metadata", dict, path)
    manifest["metadata"] = {**own_metadata, **_run_metadata(run, stage_name(run, stage), labels)}
    size = len(json.dumps(manifest).encode())
    if size > MANIFEST_BYTES:
        raise MergeError(f"{path}: it takes {size} bytes once it is filled in, and may take {MANIFEST_BYTES}")
    return manifest


def kind_of(work: ResourceWork, path: str = "manifest") -> tuple[str, str]:
    """Return apiVersion and kind of the object. Raises MergeError, naming the field below `path`, if one is missing."""
    values = []
    for field in ("apiVersion", "kind"):
        value = work.manifest.get(field)
        if not isinstance(value, str) or not value:
            raise MergeError(f"{path}.{field}: must be given, as a text")
        values.append(value)
    return values[0], values[1]


def dataset_resolve_pod(run: Json, which: str, source: DatasetSource, model: str, images: Images) -> Json:
    """Render the pod that resolves the digest of a run's dataset or holdout (`which`); it reports as a version's
    does."""
    name, uid = run["metadata"]["name"], run["metadata"]["uid"]
    labels = _run_labels(run, model) | {names.LABEL_ROLE: names.ROLE_RESOLVE}
    pod_name = names.cut_with_hash(f"{which}-{name}", names.LABEL_VALUE_MAX, name, uid, which)
    return fetch_container.digest_pod(_run_metadata(run, pod_name, labels), source, images)


def data_poll_cron_job(policy: Json, trigger: Trigger, images: Images) -> Json:
    """Render the CronJob whose pods report a fingerprint of the data that a trigger of this policy watches.

    Its minute is derived from the policy's uid and the trigger's name, so that many policies don't poll at the same
    time. Raises MergeError, naming the field of the policy, for data that cannot be polled in this way.
    """
    data = trigger.data
    path = f"spec.triggers[{trigger.name}].data"
    if data is None:
        raise MergeError(f"{path}: must be given")
    scheme = data.uri.partition("://")[0]
    if data.changed == "Count" and scheme not in ("s3", "gs", "az", "pvc"):
        raise MergeError(f"{path}.changed: {scheme} has no number of objects that could change; use ETag or Digest")
    metadata, model = policy["metadata"], policy["spec"]["modelRef"]["name"]
    name = names.cut_with_hash(
        f"{metadata['name']}-{trigger.name}", _CRON_JOB_NAME_MAX, metadata["name"], metadata["uid"], trigger.name
    )
    labels = names.model_labels(model) | {
        names.LABEL_ROLE: names.ROLE_DATA_POLL,
        names.LABEL_TRIGGER: trigger.name,
        names.LABEL_DATA_POLL: name,
        **fetch_container.identity_labels(data),
    }
    arguments = ["look", "--uri", fetch_container.escape_dollars(data.uri), "--changed", data.changed]
    spec = fetch_container.pod_spec(data, arguments, images, names.ROLE_DATA_POLL)
    mark = helper_pod_placement.placement_annotation(images, names.ROLE_DATA_POLL)
    return {
        "apiVersion": "batch/v1",
        "kind": "CronJob",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": labels,
            **({"annotations": mark} if mark else {}),
            "ownerReferences": [owner_reference(policy)],
        },
        "spec": {
            "schedule": _cron_schedule(data, f"{path}.every", f"{metadata['uid']}{chr(0)}{trigger.name}"),
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            # Without it, a CronJob stops permanently after 100 missed schedules.
            "startingDeadlineSeconds": _START_DEADLINE_SECONDS,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": {
                "metadata": {"labels": labels},
                "spec": {
                    # The fetch program retries on its own, and the next poll is not far.
                    "backoffLimit": 0,
                    "activeDeadlineSeconds": _POLL_SECONDS[data.changed],
                    "template": helper_pod_placement.place_template(
                        {"labels": labels}, {"restartPolicy": "Never", **spec}, images, names.ROLE_DATA_POLL
                    ),
                },
            },
        },
    }


def _cron_schedule(data: DataTrigger, path: str, identity: str) -> str:
    """Build the cron schedule that polls every `data.every`, at an offset derived from `identity`."""
    minutes, seconds_left = divmod(round(parse_duration(data.every)), 60)
    if seconds_left or minutes not in _EVEN_MINUTES:
        intervals = ", ".join(f"{m // 60}h" if m % 60 == 0 else f"{m}m" for m in _EVEN_MINUTES)
        raise MergeError(
            f"{path}: a CronJob polls at even intervals only if it is one of {intervals}; not {data.every}"
        )
    offset = int.from_bytes(names.short_hash(identity).encode()) % minutes
    if minutes < 60:
        return "* * * * *" if minutes == 1 else f"{offset}-59/{minutes} * * * *"
    hours, minute = divmod(offset, 60)
    step = minutes // 60
    return f"{minute} {'*' if step == 1 else hours if step == 24 else f'{hours}-23/{step}'} * * *"


def _stage_contents(stage: str, inputs: StageInputs) -> dict[str, tuple[fetch_container.FetchSource, str | None, str]]:
    """Return the contents fetched into the pod of a stage: source, digest and directory, by name."""
    contents: dict[str, tuple[fetch_container.FetchSource, str | None, str]] = {
        "dataset": (_data_source(inputs.template.dataset, inputs.dataset), inputs.dataset.digest, DATASET_DIR)
    }
    if stage != "evaluate":
        return contents
    if inputs.candidate is None:
        raise ValueError("the evaluation needs the candidate")
    if inputs.holdout is not None and inputs.template.holdout is not None:
        contents["holdout"] = (
            _data_source(inputs.template.holdout, inputs.holdout),
            inputs.holdout.digest,
            HOLDOUT_DIR,
        )
    contents["candidate"] = (inputs.candidate.artifact, inputs.candidate.digest, CANDIDATE_DIR)
    if inputs.serving is not None:
        contents["serving"] = (inputs.serving.artifact, inputs.serving.digest, SERVING_DIR)
    return contents


def _data_source(source: DatasetSource, status: DatasetStatus) -> _DataSource:
    return _DataSource(status.uri, source.service_account_name, source.credentials_secret_ref)


def _stage_variables(run: Json, stage: str, inputs: StageInputs, contents: Mapping[str, Any]) -> dict[str, str]:
    variables = {
        "MODEL_NAME": inputs.model,
        "RUN_NAME": run["metadata"]["name"],
        "STAGE": stage,
        "SEED": str(inputs.template.seed),
        "DATASET_URI": inputs.dataset.uri,
        "DATASET_DIGEST": inputs.dataset.digest,
        "DATASET_DIR": DATASET_DIR,
        "INPUTS_FILE": INPUTS_FILE,
    }
    if stage != "dataCheck":
        variables["OUTPUT_URI"] = output_uri(inputs.template, run["metadata"]["name"])
    if "holdout" in contents and inputs.holdout is not None:
        variables |= {
            "HOLDOUT_URI": inputs.holdout.uri,
            "HOLDOUT_DIGEST": inputs.holdout.digest,
            "HOLDOUT_DIR": HOLDOUT_DIR,
        }
    for name, content in (("candidate", inputs.candidate), ("serving", inputs.serving)):
        if name in contents and content is not None:
            variables |= {
                f"{name.upper()}_DIR": contents[name][2],
                f"{name.upper()}_VERSION": content.version,
                f"{name.upper()}_FORMAT": content.artifact.format.name,
            }
    if stage == "evaluate" and inputs.template.evaluate is not None:
        variables["GATED_FIGURES"] = format_gated_figures(inputs.template.evaluate.gates)
    return variables


def _format_inputs(run: Json, stage: str, work: Work, inputs: StageInputs, contents: Mapping[str, Any]) -> str:
    """Format all inputs of a stage as JSON; those in `contents` have their `dir`."""

    def data(name: str, status: DatasetStatus) -> Json:
        place = {"dir": contents[name][2]} if name in contents else {}
        return {"uri": status.uri, "digest": status.digest, **place}

    document: Json = {
        "model": inputs.model,
        "run": run["metadata"]["name"],
        "stage": stage,
        "seed": inputs.template.seed,
        "parameters": dict(inputs.parameters),
        "dataset": data("dataset", inputs.dataset),
        "output": {"uri": output_uri(inputs.template, run["metadata"]["name"])},
    }
    if inputs.serving is not None:
        document["serving"] = _describe_content(inputs.serving)
    if stage == "evaluate":
        # The holdout is hidden from training.
        if inputs.holdout is not None:
            document["holdout"] = data("holdout", inputs.holdout)
        if inputs.candidate is not None:
            document["candidate"] = _describe_content(inputs.candidate)
    if stage == "dataCheck":
        if isinstance(work, DataCheck) and work.data_schema is not None:
            document["schema"] = work.data_schema
        if inputs.previous_profile is not None:
            document["previousProfile"] = dict(inputs.previous_profile)
    # Dollars are escaped: Kubernetes would expand $(NAME) where it becomes a variable.
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":")).replace("$", "\\u0024")
    size = len(text.encode())
    if size > INPUTS_BYTES:
        raise MergeError(
            f"spec.run: the inputs of {stage} take {size} bytes as JSON, and may take {INPUTS_BYTES}: shorten "
            "parameters or dataCheck.schema"
        )
    return text


def _describe_content(content: EvaluatedContent) -> Json:
    artifact = content.artifact
    digest = {"digest": content.digest} if content.digest else {}
    return {"version": content.version, "uri": artifact.uri, **digest, "format": artifact.format.name}


def _run_labels(run: Json, model: str) -> dict[str, str]:
    name = run["metadata"]["name"]
    labels = names.child_labels(role=names.ROLE_TRAINING, model=model, version=name)
    return {**labels, names.LABEL_RUN: names.label_value(name)}


def _run_metadata(run: Json, name: str, labels: Mapping[str, str]) -> Json:
    return {
        "name": name,
        "namespace": run["metadata"]["namespace"],
        "labels": dict(labels),
        "ownerReferences": [owner_reference(run)],
    }


def _fill_placeholders(value: Any, values: Mapping[str, str]) -> Any:
    """Expand $(NAME) in every string of `value`; expanded text is not expanded again."""
    if isinstance(value, str):
        return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), value)
    if isinstance(value, dict):
        return {key: _fill_placeholders(member, values) for key, member in value.items()}
    if isinstance(value, list):
        return [_fill_placeholders(member, values) for member in value]
    return value
