"""Whether a trusted key has signed exactly the files of an artifact: OpenSSF model signatures, in key mode.

The transfer has hashed every file already, so the library is given those hashes: nothing is stored or read again, and
what is verified are the very bytes whose digest is pinned.
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
"""Where the signature of a folder is: in the folder."""
SIGNATURE_SUFFIX = ".sig"
"""Where the signature of a single file is: beside it, under its name and this."""
MAX_SIGNATURE_BYTES = 32 << 20
_SHOWN_BYTES = 1000
_SHOWN_FILES = 5


class SignatureFinding(StrEnum):
    """What an artifact's signature is worth; a reason in the ModelVersion's status."""

    VERIFIED = "SignatureVerified"
    MISSING = "SignatureMissing"
    INVALID = "SignatureInvalid"


@dataclass(frozen=True)
class SignatureJudgement:
    """A finding, in words for the person who reads the status, and the name of the key that has signed."""

    finding: SignatureFinding
    message: str
    key: str = ""

    def to_json(self) -> dict[str, str]:
        """The member `signature` of the termination message."""
        told = {"reason": str(self.finding), "message": truncate_utf8(self.message, _SHOWN_BYTES)}
        return {**told, "key": self.key} if self.key else told


def signature_uri(uri: str) -> str:
    """Where the signature of the single file at `uri` is."""
    path, mark, query = uri.partition("?") if uri.startswith(("http://", "https://")) else (uri, "", "")
    return f"{path}{SIGNATURE_SUFFIX}{mark}{query}"


def missing_signature(where: str, *, single: bool) -> SignatureJudgement:
    """No signature of the artifact at `where` is there."""
    place = (
        f"there is no {PurePosixPath(where).name}{SIGNATURE_SUFFIX} beside it"
        if single
        else f"it holds no {SIGNATURE_FILE}"
    )
    return SignatureJudgement(
        SignatureFinding.MISSING, f"{where} is not signed: {place}. Sign it, and publish it as a new ModelVersion."
    )


def invalid_signature(why: str) -> SignatureJudgement:
    """The artifact is of a form in which no signature of it can be verified."""
    return SignatureJudgement(SignatureFinding.INVALID, why)


def judge_signature(
    bundle: bytes, entries: Sequence[FileEntry], keys: Mapping[str, str], *, single: bool
) -> SignatureJudgement:
    """Whether one of `keys` (PEM, by name) has signed these files with this Sigstore bundle. `single`: one file that is
    no folder. Takes most of a second, nearly all of it for importing the library. Blocking.
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
    """Why this key does not vouch for the files; None when it does."""
    from model_signing import verifying

    try:
        config = verifying.Config()  # type: ignore[no-untyped-call]
        config.set_hashing_config(known).use_elliptic_key_verifier(public_key=key)
    except Exception:
        return "is no public key on P-256, P-384 or P-521"
    try:
        # It prints warnings, and stdout is a log of JSON lines.
        with contextlib.redirect_stdout(io.StringIO()):
            config.verify(Path(os.sep, "artifact"), signature)
    except Exception as error:
        # Of many libraries, for whatever bytes lay there. Each one means that nothing was verified.
        return str(error).strip() or type(error).__name__
    return None


def _read_hash_form(bundle: bytes) -> tuple[str, str]:
    """How the bundle says that files were hashed; two empty words when it can't be read. Not verified yet."""
    try:
        payload = json.loads(base64.b64decode(json.loads(bundle)["dsseEnvelope"]["payload"]))
        told = payload["predicate"]["serialization"]
        return str(told["method"])[:63], str(told["hash_type"])[:63]
    except (ValueError, KeyError, TypeError, RecursionError):
        return "", ""


def _format_left_out(paths: Iterable[PurePosixPath]) -> str:
    found = sorted(str(path) for path in paths if str(path) != SIGNATURE_FILE)
    if not found:
        return ""
    more = f" and {len(found) - _SHOWN_FILES} more" if len(found) > _SHOWN_FILES else ""
    return f", which leaves out {', '.join(found[:_SHOWN_FILES])}{more}"
