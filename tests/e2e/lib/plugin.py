"""The kubectl plugin, run as people run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.lib.rollouts import Story

ROOT = Path(__file__).parents[3]


def plugin(story: Story, *arguments: str, code: int = 0) -> str:
    """Its output, when it ends with this exit code."""
    cluster = story.space.world.cluster
    environment = {
        **os.environ,
        "KUBECTL": str(cluster.kubectl),
        "KUBECONFIG": str(cluster.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
    }
    command = [sys.executable, "-m", "modelwright.cli.plugin", *arguments, "--namespace", story.space.name]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, check=False)
    assert done.returncode == code, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr
