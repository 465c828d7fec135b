"""What `kubectl modelwright doctor [MODEL]` runs. What it needs is imported only then."""

from __future__ import annotations

from types import SimpleNamespace

from modelwright.cli.cluster import Cluster


def run(options: SimpleNamespace, cluster: Cluster) -> int:
    """Exit code: 1 when there is a fault, else 0."""
    from modelwright.cli.doctor import checks, reading, registry, report

    facts = reading.read(cluster, options.namespace, options.model)
    return report.report(registry.diagnose(facts, checks.SECTIONS), options.output)
