"""The images and settings of ours that end up in children."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Images:
    """Image references used in rendered pods. `pull_policy` as in core/v1, empty for Kubernetes' own default."""

    fetch: str
    pull_policy: str = ""
    operator: str = "modelwright/operator"
    """The operator's own: it also holds the comparer, the observer and the prober of the infra gate."""
