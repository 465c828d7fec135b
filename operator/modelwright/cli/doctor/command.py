"""`kubectl modelwright doctor [MODEL]`: its arguments, and what it runs. What it needs is imported only then."""

from __future__ import annotations

import argparse

from modelwright.cli.cluster import Cluster

ABOUT = "find what is wrong with the install, a namespace or a Model, each with the cure; exit code 1 with a fault"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments beside those that all commands have."""
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="a Model, or anything of it (default: all of the namespace given by -n, else of the cluster)",
    )
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")


def run(options: argparse.Namespace, cluster: Cluster) -> int:
    """Exit code: 1 when there is a fault, else 0."""
    from modelwright.cli.doctor import checks, reading, registry, report

    facts = reading.read(cluster, options.namespace, options.model)
    return report.report(registry.diagnose(facts, checks.SECTIONS), options.output)
