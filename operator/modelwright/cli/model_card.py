"""The model card of a version: Markdown with the front matter of Hugging Face."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import yaml

from modelwright.api.v1alpha1.version import ModelVersion
from modelwright.cli.lineage import artifact_digest, artifact_selection
from modelwright.cli.model_view import ModelView
from modelwright.cli.status_tree import format_authors
from modelwright.core import versions
from modelwright.net.addresses import redact_uri

Json = dict[str, Any]


def render_card(view: ModelView, version: str) -> str:
    """Render the card from recorded facts only; unknown facts are left out. Raises ObjectNotFound."""
    target = view.get_version(version)
    spec, card = target.spec, target.spec.card
    front: Json = {"library_name": spec.artifact.format.name, "tags": ["modelwright"]}
    if card is not None and card.license:
        front["license"] = card.license.lower()
    if spec.metrics:
        results = [
            {
                "dataset": {"name": metric.dataset, "type": metric.dataset},
                "metrics": [{"name": metric.name, "type": metric.name, "value": float(Decimal(metric.value))}],
                "task": {"type": "other"},
            }
            for metric in spec.metrics
        ]
        front["model-index"] = [{"name": f"{view.model.name} {target.name}", "results": results}]
    parts = [
        "---\n" + yaml.safe_dump(front, sort_keys=False, allow_unicode=True) + "---",
        f"# {view.model.name}: {target.name}",
    ]
    if card is not None:
        for title, text in (
            ("", card.summary),
            ("Intended use", card.intended_use),
            ("Limitations", card.limitations),
        ):
            parts += [f"## {title}\n\n{text}" if title else text] if text else []
    parts += [f"## {title}\n\n{body}" for title, body in _card_sections(view, target) if body]
    return "\n\n".join(parts) + "\n"


def _card_sections(view: ModelView, version: ModelVersion) -> Iterator[tuple[str, str]]:
    spec, lineage = version.spec, version.spec.lineage
    metrics = [("metric", "value", "dataset"), *((m.name, str(m.value), m.dataset) for m in spec.metrics)]
    yield "Evaluation", _markdown_table(metrics) if spec.metrics else ""
    parameters = [("parameter", "value"), *sorted(spec.parameters.items())]
    training = []
    if lineage is not None:
        training += (
            [f"- Data: `{redact_uri(lineage.dataset.uri)}` `{lineage.dataset.digest or ''}`"]
            if lineage.dataset is not None
            else []
        )
        training += (
            [f"- Code: {lineage.code.repository} at `{lineage.code.commit}`"] if lineage.code is not None else []
        )
        training += [f"- Image: `{lineage.image}`"] if lineage.image else []
        training += [f"- TrainingRun: {lineage.training_run}"] if lineage.training_run else []
        training += [f"- Derived from: {lineage.parent}"] if lineage.parent else []
    yield "Training", "\n".join(training) + ("\n\n" + _markdown_table(parameters) if spec.parameters else "")
    owner, serving = (
        view.model.spec.owner,
        [
            f"- Artifact: `{redact_uri(spec.artifact.uri)}`",
            *([f"- Selected: `{selection}`"] if (selection := artifact_selection(version)) else []),
            f"- Digest: `{artifact_digest(version) or 'not known yet'}`",
        ],
    )
    serving += [f"- Stage: {versions.lifecycle_stage(version, view.model.status)}"]
    serving += [f"- Author: {', '.join(spec.all_authors)}"] if spec.all_authors else []
    serving += [f"- Owner: {', '.join(filter(None, (owner.team, owner.contact)))}"] if owner is not None else []
    yield "In service", "\n".join(serving)
    rollouts = [rollout for rollout in view.rollouts if rollout.spec.target.version == version.name]
    scans = [gate for rollout in rollouts for gate in rollout.status.gates if gate.name == "scan"]
    yield "Scan for code", f"{scans[-1].outcome}: {scans[-1].message}" if scans else ""
    authored = [line for rollout in rollouts for line in format_authors(rollout.status.authors, f"{rollout.name}: ")]
    rows = [
        ("rollout", "state", "message"),
        *((rollout.name, str(rollout.status.state), rollout.status.message or "") for rollout in rollouts),
    ]
    yield "Rollouts", "\n\n".join(filter(None, (_markdown_table(rows), "\n".join(authored)))) if rollouts else ""


def _markdown_table(rows: Sequence[Sequence[str]]) -> str:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [cells[0], ["---"] * len(cells[0]), *cells[1:]])
