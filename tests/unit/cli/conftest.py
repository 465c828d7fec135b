"""A kubectl that answers from files, for the plugin as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.cli import world

KUBECTL = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
  *"get pods"*) echo '{{"items": []}}' ;;
  *customresourcedefinitions*) cat {crds} ;;
  *"get events"*) cat {events} ;;
  logs*|*" logs "*) cat {logs} ;;
  *port-forward*) echo "Forwarding from 127.0.0.1:$(cat {port}) -> 8080"; read word < {never} ;;
  *"get clustermodelruntimes"*) printf V2 ;;
  *deployments*) cat {deployments} ;;
  *"get "*) cat {objects} ;;
  *patch*|*delete*) if [ -e {after} ]; then cp {after} {objects}; fi ;;
  *whoami*) printf alice ;;
  *create*) cat > {written}; printf made-1 ;;
  *) echo "error: unexpected $*" >&2; exit 1 ;;
esac
"""


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubectl that tells of the world's namespace, and keeps what it is given to create. After a patch or a deletion
    it answers with the file `after`, if there is one."""
    (tmp_path / "objects").write_text(json.dumps({"items": world.namespace()}))
    program = tmp_path / "kubectl"
    names = ["calls", "objects", "written", "after", "crds", "deployments", "events", "logs", "port", "never"]
    program.write_text(KUBECTL.format(**{name: tmp_path / name for name in names}))
    program.chmod(0o755)
    monkeypatch.setenv("KUBECTL", str(program))
    return tmp_path
