"""What the operator process imports, and what it leaves out."""

import subprocess
import sys

LEAVE_OUT = "import sys; from modelwright.app.memory import leave_out_synchronous_client as out; out(); "


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={"PYTHONPATH": "operator", **environment},
    )


def test_the_operator_never_imports_the_synchronous_client() -> None:
    unwanted = {"requests", "oauthlib", "websocket", "kubernetes.client.api_client"}
    ended = run(f"{LEAVE_OUT} import modelwright.app.main; print(sorted({unwanted!r} & set(sys.modules)))")
    assert ended.stdout == "[]\n", ended.stderr


def test_the_client_that_is_left_out_reads_as_not_installed() -> None:
    assert "ModuleNotFoundError" in run(f"{LEAVE_OUT} import kopf, kubernetes.client").stderr


def test_the_entry_point_leaves_it_out() -> None:
    code = "import sys, modelwright.__main__ as entry; print(entry.main(['run']), 'requests' in sys.modules)"
    ended = run(code, MODELWRIGHT_LOG_LEVEL="no such level")
    assert ended.stdout.split() == ["2", "False"], ended.stderr
