"""Checks the user's rights against the shipped roles."""

from __future__ import annotations

from collections.abc import Iterator

from modelwright.api.names import GROUP
from modelwright.cli.doctor.facts import Facts
from modelwright.cli.doctor.registry import DoctorFinding, cluster_check, ok_finding, warning_finding
from modelwright.cli.doctor.roles import ROLES


@cluster_check("rights", "none of the shipped roles")
def check_rights(facts: Facts) -> Iterator[DoctorFinding]:
    """Report which roles the user has, according to the API server. A role held only in part is a mistake."""
    answers = [review for review in facts.list_all("reviews") if review["group"] == GROUP]
    allowed = {(review["resource"], review["verb"]) for review in answers if review["allowed"] == "true"}
    scope = f"in namespace {facts.namespace}" if facts.namespace else "in all namespaces"
    whole = []
    for role, wanted in ROLES.items():
        missing = [right for right in wanted if right not in allowed]
        if not missing:
            whole.append(role)
        elif len(missing) < len(wanted) and not _is_covered_by_another(role, allowed):
            lacks = ", ".join(f"{verb} {plural}" for plural, verb in missing[:4])
            text = f"you have a part of modelwright-{role} {scope} only, without {lacks}"
            yield warning_finding("", text, f"ask for a binding of the ClusterRole modelwright-{role}")
    yield ok_finding(f"you may {', '.join(whole)} {scope}" if whole else f"you have no whole role {scope}")


def _is_covered_by_another(role: str, allowed: set[tuple[str, str]]) -> bool:
    """Return whether another role includes all rights that the user has of this one, such as reading for those who
    command."""
    has = {right for right in ROLES[role] if right in allowed}
    others = (("models", "list"), ("modelversions", "list"), ("modelrollouts", "list"))
    return role == "view" and has <= set(others)
