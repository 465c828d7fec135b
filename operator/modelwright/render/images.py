"""The operator's images and settings that rendered children use."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from modelwright.api.v1alpha1.helper_pods import HelperPods

INSTANCE_CREDENTIALS = "MODELWRIGHT_FETCH_INSTANCE_CREDENTIALS"
VERIFY_CACHE = "MODELWRIGHT_FETCH_VERIFY_CACHE"


@dataclass(frozen=True, slots=True)
class Images:
    """Images and settings of rendered pods. `pull_policy` as in core/v1, empty for Kubernetes' own default."""

    fetch: str
    pull_policy: str = ""
    operator: str = "modelwright/operator"
    """The operator's image, which also contains the comparer, the drift monitor and the prober of the infra gate."""
    copy_token: bool = True
    """Whether the comparer and the drift monitor count only requests with the token of the Model's route."""
    fetch_env: Mapping[str, str] = field(default_factory=dict)
    """The administrator's environment of fetch containers; it takes precedence over an author's podTemplate."""
    helper_pods: HelperPods = field(default_factory=HelperPods)
    """Placement and size of the pods beside the serving ones."""
    administrators: HelperPods | None = None
    """`helper_pods` without the settings of a Model's author; None where the author has set none."""
    platform_ids: bool = False
    """Whether the platform, such as OpenShift, assigns users and groups to pods; ours are then left out."""

    def verify_cache(self, *, signed: bool) -> str:
        """Return how a shared cache is verified: `size` or `full`, the default for Models that require signatures."""
        return self.fetch_env.get(VERIFY_CACHE) or ("full" if signed else "size")
