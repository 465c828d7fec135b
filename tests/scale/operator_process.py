"""The operator as a process of its own, as tests and measurements run it against a control plane."""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from devcluster import ports
from tests.scale import processes

ROOT = Path(__file__).parents[2]


class OperatorProcess:
    """`python -m modelwright run` with a kubeconfig; its log goes to `log`. Ends with the `with` block.

    `program` are other arguments for Python, `environment` further variables.
    """

    def __init__(
        self,
        kubeconfig: Path,
        log: Path,
        *,
        program: Sequence[str] = ("-m", "modelwright", "run"),
        environment: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self._log = log
        self._program = program
        self.port, webhooks = ports.free_ports(2)
        fixed = {
            "http_host": "127.0.0.1",
            "http_port": self.port,
            "webhook_port": webhooks,
            "metrics_authentication": "Off",
            "namespace": "default",
            "gateway_probe": "Off",
        }
        self._environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("MODELWRIGHT_")},
            "PYTHONPATH": f"{ROOT / 'operator'}:{ROOT}",
            "KUBECONFIG": str(kubeconfig),
            **(environment or {}),
            **{f"MODELWRIGHT_{key.upper()}": str(value) for key, value in {**fixed, **settings}.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> "OperatorProcess":
        """Start it, without waiting for anything."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self._program],
                env=self._environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )
        return self

    def wait_ready(self, timeout: float = 180) -> float:
        """Seconds until /readyz says yes. Raises RuntimeError with the end of the log when it doesn't."""
        begin = time.monotonic()
        while time.monotonic() - begin < timeout:
            if self.process is not None and self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=1):
                    return time.monotonic() - begin
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"the operator is not ready after {timeout} s; {self._end_of_log()}")

    def check(self) -> None:
        """Raise RuntimeError with the end of the log when it has ended."""
        if self.process is not None and self.process.poll() is not None:
            raise RuntimeError(f"the operator has ended with {self.process.returncode}; {self._end_of_log()}")

    def _end_of_log(self) -> str:
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
        return f"its log {self._log} ends:\n{tail}"

    def metrics(self) -> str:
        """What /metrics says."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=10) as answer:
            return str(answer.read().decode())

    def leads(self) -> bool:
        """Whether it says so itself, and its store is complete."""
        try:
            return "\nmodelwright_leader 1.0\n" in self.metrics()
        except OSError:
            return False

    def cpu_seconds(self) -> float:
        """User and system CPU time used so far."""
        assert self.process is not None
        return processes.cpu_seconds(self.process.pid)

    def resident_mib(self, peak: bool = False) -> float:
        """Resident memory in MiB: now, or its peak since the start or `forget_peak`."""
        assert self.process is not None
        return processes.resident_mib(self.process.pid, peak)

    def forget_peak(self) -> None:
        """Let the peak count from now on."""
        assert self.process is not None
        processes.forget_peak(self.process.pid)

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def __enter__(self) -> "OperatorProcess":
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
