"""Signatures: whether a version may start to serve a Model that requires them, and the recorded verification."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.api import names
from modelwright.api.reasons import Reason
from modelwright.api.v1alpha1.model import Signatures
from modelwright.api.v1alpha1.version import Artifact, ModelVersion, SignatureStatus
from modelwright.core import versions
from modelwright.core.problem import Problem


def known_digest(artifact: Artifact, resolved: str | None, signatures: Signatures | None) -> str | None:
    """Return the digest that is known without fetching, as `versions.pinned_digest`.

    Where signatures are required, a commit named by the address is no digest: only the Hub vouches for its content, and
    the signature covers the files.
    """
    digest = versions.pinned_digest(artifact, resolved)
    by_address = digest not in (artifact.digest, resolved)
    return (
        None if signatures is not None and by_address and digest is not None and digest.startswith("git:") else digest
    )


def recall_finding(
    signatures: Signatures, digest: str | None, finding: SignatureStatus | None
) -> SignatureStatus | None:
    """Return an earlier finding that is still valid; None when the signature must be verified again.

    Content doesn't change under its digest, so a finding is valid as long as the signing key is trusted, or, without a
    valid signature, as long as the keys are the same.
    """
    if digest is None:
        return None
    if digest.startswith("git:"):
        text = (
            "spec.artifact.digest: only the Hub vouches for the content of a git: digest, so that no signature can be "
            "compared with it; make a ModelVersion without it, whose files are pinned then"
        )
        return SignatureStatus(
            digest=digest,
            keys=_combined_key_hash(signatures),
            verified=False,
            reason=Reason.SIGNATURE_INVALID,
            message=text,
        )
    if finding is None or finding.digest != digest:
        return None
    trusted = set(_key_hashes(signatures).values()) if finding.verified else {_combined_key_hash(signatures)}
    return finding if finding.keys in trusted else None


def parse_finding(signatures: Signatures, digest: str, report: object) -> SignatureStatus | None:
    """Parse the finding in a resolve pod's report; None when it has none, or a malformed one."""
    if not isinstance(report, Mapping):
        return None
    reason, message = report.get("reason"), str(report.get("message", ""))
    if reason == Reason.SIGNATURE_VERIFIED:
        key = _key_hashes(signatures).get(str(report.get("key")))
        if key is None:
            return None
        return SignatureStatus(digest=digest, keys=key, verified=True, reason=reason, message=message)
    if reason not in (Reason.SIGNATURE_MISSING, Reason.SIGNATURE_INVALID):
        return None
    return SignatureStatus(
        digest=digest, keys=_combined_key_hash(signatures), verified=False, reason=reason, message=message
    )


def signature_problem(
    signatures: Signatures | None, version: ModelVersion, digest: str, serving: str | None
) -> Problem | None:
    """Return why a version must not start to serve; None when it may. The serving version is never stopped."""
    if signatures is None or signatures.mode != "Enforce" or version.name == serving:
        return None
    finding = recall_finding(signatures, digest, version.status.signature)
    if finding is None:
        failure = version.status.failure
        if failure is not None:
            return Problem(failure.reason, f"ModelVersion {version.name}: {failure.message}", stalled=True)
        text = f"ModelVersion {version.name}: its signature is being verified"
        return Problem(Reason.WAITING_FOR_SIGNATURE, text)
    if finding.verified:
        return None
    return Problem(finding.reason, f"ModelVersion {version.name}: spec.signatures: {finding.message}", stalled=True)


def _key_hashes(signatures: Signatures) -> dict[str, str]:
    return {key.name: names.short_hash(key.pem) for key in signatures.public_keys}


def _combined_key_hash(signatures: Signatures) -> str:
    return names.content_hash(sorted(_key_hashes(signatures).values()))
