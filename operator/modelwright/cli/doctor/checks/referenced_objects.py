"""Checks that referenced Secrets, ServiceAccounts and claims exist, and that Secrets have the keys of their store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from modelwright.cli.doctor.facts import Facts, Json
from modelwright.cli.doctor.references import ObjectReference, collect_references
from modelwright.cli.doctor.registry import DoctorFinding, cluster_check, fault_finding, namespace_check

KEY_PREFIXES: Final[Mapping[str, tuple[str, ...]]] = {
    "s3": ("AWS_",),
    "gs": ("GOOGLE_",),
    "az": ("AZURE_",),
    "http": ("HTTP_",),
    "https": ("HTTP_",),
    "hf": ("HF_",),
    "oci": (".dockerconfigjson", "REGISTRY_INSECURE"),
}
"""Prefixes of the keys that a scheme reads; ca.crt is for all schemes."""
COMPANION_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    "AWS_ACCESS_KEY_ID": ("AWS_SECRET_ACCESS_KEY",),
    "AWS_SECRET_ACCESS_KEY": ("AWS_ACCESS_KEY_ID",),
    "AZURE_CLIENT_SECRET": ("AZURE_CLIENT_ID", "AZURE_TENANT_ID"),
    "HTTP_AUTHORIZATION": ("HTTP_HOSTS",),
}
"""Keys that have no effect without others."""
KEYS_HINT: Final = "docs/how-to/artifacts.md, Credentials, has the keys of each store"


@namespace_check("Secrets", "every Secret that is named is there, with the keys of its store")
def check_secrets(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check Secrets of stores by the names of their keys; values are never read."""
    for use, secret in _referenced_objects(facts, "secrets", namespace):
        about = f"Secret {namespace}/{use.name}"
        if secret is None:
            yield fault_finding(about, f"is not there, and {use.by} names it", _create_command(use))
        elif use.uri:
            yield from _check_keys(about, use, set(secret["keys"]))


def _referenced_objects(facts: Facts, name: str, namespace: str) -> Iterator[tuple[ObjectReference, Json | None]]:
    """Return the references to objects of a resource in the namespace, each with the object if it exists."""
    uses = collect_references(facts).in_namespace(name, namespace)
    existing = facts.by_name(name, namespace)
    return ((use, existing.get(use.name)) for use in uses)


def _check_keys(about: str, use: ObjectReference, keys: set[str]) -> Iterator[DoctorFinding]:
    scheme = use.uri.partition(":")[0]
    beginnings = KEY_PREFIXES.get(scheme, ())
    known = {key for key in keys if key.startswith(beginnings) or key == "ca.crt"}
    if beginnings and not known:
        text = f"has {', '.join(sorted(keys)) or 'no keys'}, and none that {scheme}:// reads, for {use.by}"
        yield fault_finding(about, text, f"rename its keys: {KEYS_HINT}")
    for key in sorted(known):
        missing = [other for other in COMPANION_KEYS.get(key, ()) if other not in keys]
        if missing:
            text = f"has {key} without {' and '.join(missing)}, which {use.by} needs for {scheme}://"
            patch = ", ".join(f'"{other}": "..."' for other in missing)
            cure = f"kubectl -n {use.namespace} patch secret {use.name} -p '{{\"stringData\": {{{patch}}}}}'"
            yield fault_finding(about, text, cure)


def _create_command(use: ObjectReference) -> str:
    return f"kubectl -n {use.namespace} create secret generic {use.name} --from-literal=KEY=VALUE ({KEYS_HINT})"


@namespace_check("ServiceAccounts", "every ServiceAccount that is named is there")
def check_service_accounts(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check ServiceAccounts of pods."""
    for use, account in _referenced_objects(facts, "serviceaccounts", namespace):
        if account is None:
            cure = f"kubectl -n {namespace} create serviceaccount {use.name}, or correct serviceAccountName"
            yield fault_finding(f"ServiceAccount {namespace}/{use.name}", f"is not there, and {use.by} names it", cure)


@namespace_check("claims", "every PersistentVolumeClaim that is named is there")
def check_claims(facts: Facts, namespace: str) -> Iterator[DoctorFinding]:
    """Check claims of caches, and of pvc:// addresses."""
    for use, claim in _referenced_objects(facts, "persistentvolumeclaims", namespace):
        about = f"PersistentVolumeClaim {namespace}/{use.name}"
        if claim is None:
            yield fault_finding(about, f"is not there, and {use.by} names it", "make the claim, or correct its name")
        elif (claim.get("status") or {}).get("phase") == "Lost":
            yield fault_finding(
                about, f"has lost its volume, and {use.by} names it", "make the claim again, with its data"
            )


@cluster_check("operator's Secrets", "every Secret that the operator's Deployment names is there")
def check_operator_secrets(facts: Facts) -> Iterator[DoctorFinding]:
    """Check Secrets of connections, TLS and the registry: without a connection's Secret the operator's pods don't
    start."""
    for home in sorted({obj["metadata"]["namespace"] for obj in facts.list_all("operator-deployments")}):
        uses = [use for use in collect_references(facts).in_namespace("secrets", home) if not use.uri]
        existing = facts.by_name("secrets", home) if uses else {}
        for use in uses:
            if use.name not in existing:
                cure = "make it, or take it out of the chart's connectionSecrets, tls.secretName or imagePullSecrets"
                yield fault_finding(f"Secret {home}/{use.name}", f"is not there, and {use.by} names it", cure)
