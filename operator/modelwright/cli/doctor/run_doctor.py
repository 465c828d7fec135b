"""Handler of `kubectl modelwright doctor [MODEL]`, which imports its checks only when it runs."""

from __future__ import annotations

from types import SimpleNamespace

from modelwright.cli.kubectl import KubectlClient


def run_doctor(options: SimpleNamespace, kubectl: KubectlClient) -> int:
    """Run the checks and print their findings; exit code 1 with a fault, else 0."""
    from modelwright.cli.doctor import checks, cluster_reader, doctor_report, registry

    facts = cluster_reader.read_cluster(kubectl, options.namespace, options.model)
    return doctor_report.print_report(registry.run_checks(facts, checks.SECTIONS), options.output)
