"""The inputs that a revision's pod template is rendered from."""

from dataclasses import dataclass

from modelwright.api.v1alpha1.model import Serving
from modelwright.api.v1alpha1.version import VersionContent
from modelwright.core.revision import Revision
from modelwright.core.runtime_choice import RuntimeChoice
from modelwright.render.fetch_container import CacheProof


@dataclass(frozen=True, slots=True)
class RevisionInput:
    """A version's content with the runtime and the serving settings that run it."""

    revision: Revision
    content: VersionContent
    digest: str
    """The artifact's digest, which pods verify."""
    choice: RuntimeChoice
    serving: Serving
    proof: CacheProof | None = None
    """How content of a shared cache is verified; None is the default."""
