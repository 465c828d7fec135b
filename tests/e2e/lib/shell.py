"""What a person's shell has: kubectl, helm, the plugin, and the address of the cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from devcluster.cluster import Cluster

ROOT = Path(__file__).parents[3]
PLUGIN = """#!{python}
import sys
from modelwright.cli.plugin import main
sys.exit(main(sys.argv[1:]))
"""


def environment(cluster: Cluster, programs: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Variables of a shell with the plugin and `more` programs, which are written to the folder `programs`.

    In their texts, {python} and {cluster} are filled in.
    """
    programs.mkdir(exist_ok=True)
    for name, text in {"kubectl-modelwright": PLUGIN, **(more or {})}.items():
        (programs / name).write_text(text.format(python=sys.executable, cluster=cluster.name))
        (programs / name).chmod(0o755)
    path = [programs, cluster.kubectl.parent, cluster.helm.parent, os.environ["PATH"]]
    return {
        **os.environ,
        "PATH": ":".join(str(each) for each in path),
        "KUBECONFIG": str(cluster.kubeconfig),
        "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
    }
