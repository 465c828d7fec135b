"""What `kubectl modelwright doctor [MODEL]` runs. What it needs is imported only then."""

from __future__ import annotations

from types import SimpleNamespace

from modelwright.cli.kubectl import KubectlClient


def run(options: SimpleNamespace, kubectl: KubectlClient) -> int:
    """Exit code: 1 when there is a fault, else 0."""
    from modelwright.cli.doctor import checks, cluster_reader, doctor_report, registry

    facts = cluster_reader.read_cluster(kubectl, options.namespace, options.model)
    return doctor_report.print_report(registry.run_checks(facts, checks.SECTIONS), options.output)
