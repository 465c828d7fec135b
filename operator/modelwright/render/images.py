"""The images and settings of ours that end up in children."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwright.api.v1alpha1.helper_pods import HelperPods

INSTANCE_CREDENTIALS = "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS"
VERIFY_CACHE = "MODELWRIGHT_FETCH_VERIFY_CACHE"


@dataclass(frozen=True, slots=True)
class Images:
    """Image references used in rendered pods. `pull_policy` as in core/v1, empty for Kubernetes' own default."""

    fetch: str
    pull_policy: str = ""
    operator: str = "modelwright/operator"
    """The operator's own: it also holds the comparer, the observer and the prober of the infra gate."""
    copy_token: bool = True
    """Whether the comparer and the observer count only what carries the token of the Model's route."""
    fetch_env: Mapping[str, str] = field(default_factory=dict)
    """The administrator's environment of whatever fetches; it wins over an author's podTemplate."""
    helper_pods: HelperPods = field(default_factory=HelperPods)
    """Where pods beside the serving ones run, and how large they are."""
    administrators: HelperPods | None = None
    """`helper_pods` before what the author of a Model says; None where none has said anything."""
    platform_ids: bool = False
    """Whether the platform, such as OpenShift, gives pods their users and groups; ours are left out then."""

    def verify_cache(self, *, signed: bool) -> str:
        """How a shared cache is verified: `size` or `full`, which is the default for Models that ask for signatures."""
        return self.fetch_env.get(VERIFY_CACHE) or ("full" if signed else "size")
