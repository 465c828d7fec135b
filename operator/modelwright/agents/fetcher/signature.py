"""Verifies whether a trusted key has signed exactly the files of an artifact: OpenSSF model signatures, in key mode.

The transfer has already hashed every file, so the library receives those hashes: nothing is stored or read again, and
the verified bytes are those of the pinned digest.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from modelwright.agents.fetcher import disk
from modelwright.agents.fetcher.digest import FileEntry
from modelwright.agents.fetcher.report import truncate_utf8

if TYPE_CHECKING:
    from modelwright.agents.fetcher.manifests import KnownHashes

SIGNATURE_FILE = "model.sig"
"""Name of the signature in a signed folder."""
SIGNATURE_SUFFIX = ".sig"
"""Suffix of the signature beside a signed single file."""
MAX_SIGNATURE_BYTES = 32 << 20
_SHOWN_BYTES = 1000
_SHOWN_FILES = 5


class SignatureFinding(StrEnum):
    """Result of verifying an artifact's signature; a reason in the ModelVersion's status."""

    VERIFIED = "SignatureVerified"
    MISSING = "SignatureMissing"
    INVALID = "SignatureInvalid"


@dataclass(frozen=True)
class SignatureJudgement:
    """A finding, a message for the reader of the status, and the name of the signing key."""

    finding: SignatureFinding
    message: str
    key: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the member `signature` of the termination message."""
        document = {"reason": str(self.finding), "message": truncate_utf8(self.message, _SHOWN_BYTES)}
        return {**document, "key": self.key} if self.key else document


def signature_uri(uri: str) -> str:
    """Return the address of the signature of the single file at `uri`."""
    path, mark, query = uri.partition("?") if uri.startswith(("http://", "https://")) else (uri, "", "")
    return f"{path}{SIGNATURE_SUFFIX}{mark}{query}"


def missing_signature(where: str, *, single: bool) -> SignatureJudgement:
    """Build the judgement for the artifact at `where` without a signature."""
    place = (
        f"there is no {PurePosixPath(where).name}{SIGNATURE_SUFFIX} beside it"
        if single
        else f"it holds no {SIGNATURE_FILE}"
    )
    return SignatureJudgement(
        SignatureFinding.MISSING, f"{where} is not signed: {place}. Sign it, and publish it as a new ModelVersion."
    )


def invalid_signature(why: str) -> SignatureJudgement:
    """Build the judgement for a signature that can't be verified, or is wrong."""
    return SignatureJudgement(SignatureFinding.INVALID, why)


def judge_signature(
    bundle: bytes, entries: Sequence[FileEntry], keys: Mapping[str, str], *, single: bool
) -> SignatureJudgement:
    """Verify whether one of `keys` (PEM, by name) has signed these files with this Sigstore bundle. Blocking.

    `single`: the artifact is one file and not a folder. Takes most of a second, nearly all of it for importing the
    library.
    """
    from modelwright.agents.fetcher.manifests import KnownHashes  # here, since it is slow

    form = _read_hash_form(bundle)
    if form != ("files", "sha256"):
        return invalid_signature(
            f"The signature holds hashes by {' and '.join(form)}; only files and sha256, which are what model_signing "
            "takes by default, are verified."
            if all(form)
            else "The signature can't be read: it is no Sigstore bundle of model_signing 1.0 or later."
        )
    refused = []
    with disk.temporary_folder("The signature") as folder:
        signature = Path(folder, SIGNATURE_FILE)
        with disk.translate_errors(folder, "The signature"):
            signature.write_bytes(bundle)
        for name, pem in keys.items():
            key = Path(folder, "key.pem")
            with disk.translate_errors(folder, "The key"):
                key.write_text(pem)
            known = KnownHashes(entries, single=single, signature=SIGNATURE_FILE)
            error = _key_problem(known, key, signature)
            if error is None:
                return SignatureJudgement(
                    SignatureFinding.VERIFIED, f"signed by key {name}{_format_left_out(known.left_out)}", name
                )
            if known.compared:
                return invalid_signature(f"The artifact is not what key {name} has signed: {error}")
            refused.append(f"{name}: {error}")
    return invalid_signature(f"None of the Model's keys has signed the artifact. {'; '.join(refused)}")


def _key_problem(known: KnownHashes, key: Path, signature: Path) -> str | None:
    """Say why this key does not vouch for the files; None if it does."""
    from model_signing import verifying

    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.set_hashing_config(known).use_elliptic_key_verifier(public_key=key)
    except Exception:
        return "is no public key on P-256, P-384 or P-521"
    try:
        # The library prints warnings, and stdout is a log of JSON lines.
        with contextlib.redirect_stdout(io.StringIO()):
            config.verify(Path(os.sep, "artifact"), signature)
    except Exception as error:
        # Arbitrary bytes raise errors of many libraries. Each one means that nothing was verified.
        return str(error).strip() or type(error).__name__
    return None


def _read_hash_form(bundle: bytes) -> tuple[str, str]:
    """Return how the bundle says that files were hashed; two empty texts if it can't be read. Not verified yet."""
    try:
        payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
        serialization = payload["predicate"]["serialization"]
        return str(serialization["method"])[:63], str(serialization["hash_type"])[:63]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _format_left_out(paths: Iterable[PurePosixPath]) -> str:
    names = sorted(str(path) for path in paths if str(path) != SIGNATURE_FILE)
    if not names:
        return ""
    more = f" and {len(names) - _SHOWN_FILES} more" if len(names) > _SHOWN_FILES else ""
    return f", which leaves out {', '.join(names[:_SHOWN_FILES])}{more}"
