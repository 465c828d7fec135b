"""Access to the cluster through the user's own kubectl, and so with the user's rights, context and proxies."""

from __future__ import annotations

import codecs
import json
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.api.names import GROUP
from modelwright.cli.printing import print_text
from modelwright.cli.user_error import UserError

Json = dict[str, Any]

REQUIRED_KINDS = ("models", "modelversions", "modelrollouts")
"""Kinds that every view needs; roles that only approve or command may list them too."""
VIEW_KINDS = (*REQUIRED_KINDS, "retrainingpolicies", "trainingruns")
KUBECTL_TIMEOUT = 60.0
SIGN_IN_TIMEOUT = 600.0
"""Seconds that kubectl has once a credential plugin has printed a prompt, because the user may be signing in."""
_KUBECTL_PREFIXES = (
    "Error from server",
    "Error in configuration",
    "No resources found",
    "The connection to the server ",
    "Unable to connect to the server",
    "You must be logged in",
    "error: ",
)
"""Prefixes of kubectl's own error messages; from such a line on, all output belongs to kubectl."""
_CLUSTER_UNREACHABLE = re.compile(
    r"The connection to the server |Unable to connect to the server|Error in configuration|"
    r"error: (context .* does not exist|current-context |stat .*: no such file|.*no configuration has been provided)"
)
_FORWARDED_PORT = re.compile(r"Forwarding from 127\.0\.0\.1:(\d+) ")
_VALIDATION_ERROR = re.compile(r'The [A-Za-z]+ "')
_LOG_LINE = re.compile(r"[EWIF][0-9]{4} |Warning: ")
_UNDECIDED_LINE = re.compile(r"[EWIF][0-9]{0,4}|The( [A-Za-z]*)?")
_REASON_PREFIX = re.compile(r'^(error: |Error from server( \(\w+\))?: )?(error when \w+ "STDIN": )?')


class ClusterError(UserError):
    """A kubectl command failed; the text is its error message."""


class Forbidden(ClusterError):
    """The API server denies the request. `needs` describes the missing rights where the verb's own do not."""

    needs = ""


class ClusterUnreachable(ClusterError):
    """No API server responds, or the kubeconfig names none."""


class NoSuchResource(ClusterError):
    """The API server has no resource of this name."""


@dataclass(frozen=True)
class KubectlClient:
    """One namespace with its user's rights.

    `flags`: kubectl's flags for context, kubeconfig and namespace. `prompts`: whether a credential plugin may
    prompt the user.
    """

    flags: Sequence[str] = ()
    prompts: bool = True

    def list_objects(self, *more: str) -> list[Json]:
        """List the objects that a ModelView is built from: our kinds, and the pods of models. Kinds that the user
        may not list are left out, except required ones and `more`, for which Forbidden is raised."""
        needed = (*REQUIRED_KINDS, *more)
        try:
            objects = self._get_items(_join_resources(VIEW_KINDS))
        except Forbidden:
            objects = self._get_items(_join_resources(needed))
            for kind in (kind for kind in VIEW_KINDS if kind not in needed):
                objects += self._get_items_if_allowed(_join_resources([kind]))
        return objects + self._get_items_if_allowed("pods", "-l", f"{GROUP}/model")

    def list_names(self, kind: str) -> list[str]:
        """List the names of all objects of one of our kinds."""
        return self.run("get", f"{kind}.{GROUP}", "-o", "jsonpath={.items[*].metadata.name}").split()

    def read_stored_policy(self, name: str) -> Json | None:
        """Read the policy stored in a ControllerRevision; None when it is missing or the user may not read it."""
        from modelwright.core import policy_objects

        try:
            revision = json.loads(self.run("get", "controllerrevisions.apps", name, "-o", "json"))
        except ClusterError:
            return None
        return policy_objects.read_policy_spec(revision, name)

    def whoami(self) -> str:
        """Return the user name as the API server knows it; admission compares with this name."""
        return self.run("auth", "whoami", "-o", "jsonpath={.status.userInfo.username}").strip()

    def patch(self, kind: str, name: str, change: Json) -> None:
        """Apply a JSON merge patch."""
        self.run("patch", f"{kind}.{GROUP}", name, "--type=merge", "-p", json.dumps(change))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object of one of our kinds, and wait until it is gone."""
        self.run("delete", f"{kind}.{GROUP}", name)

    def create(self, body: Json) -> str:
        """Create an object and return its name."""
        return self.run("create", "-f", "-", "-o", "jsonpath={.metadata.name}", stdin=json.dumps(body)).strip()

    def dry_run(self, body: Mapping[str, Any]) -> str | None:
        """Return why the API server would refuse an object; None when it would accept it."""
        try:
            if not body["metadata"].get("name"):
                self.run("create", "--dry-run=server", "-f", "-", stdin=json.dumps(body))
                return None
            self.run(
                "apply", "--server-side", "--dry-run=server", "--force-conflicts", "-f", "-", stdin=json.dumps(body)
            )
        except ClusterError as error:
            return str(error)
        return None

    def _get_items(self, *arguments: str) -> list[Json]:
        items: list[Json] = json.loads(self.run("get", *arguments, "-o", "json"))["items"]
        return items

    def _get_items_if_allowed(self, *arguments: str) -> list[Json]:
        try:
            return self._get_items(*arguments)
        except Forbidden:
            return []

    def build_kustomization(self, folder: Path) -> str:
        """Build the manifests of a kustomization, without a server. Raises ClusterError."""
        return self.run("kustomize", str(folder))

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        """Return the standard output of a kubectl command. Raises ClusterError."""
        process, errors = self._start_process(arguments, subprocess.PIPE if stdin is not None else self._stdin)
        try:
            output = _wait_for_output(process, stdin, errors)
        except BaseException:
            process.kill()
            process.wait()
            raise
        _raise_on_failure(process, errors, arguments, output)
        return output

    def stream_lines(self, *arguments: str) -> Generator[str]:
        """Yield the standard output of a kubectl command line by line. Closing the iterator ends the command. Raises
        ClusterError."""
        process, errors = self._start_process(arguments, self._stdin)
        try:
            for line in process.stdout or ():
                yield line.rstrip("\n")
        except BaseException:
            process.terminate()
            raise
        finally:
            process.wait()
        _raise_on_failure(process, errors, arguments, "")

    @contextmanager
    def forward_port(self, service: str) -> Iterator[int]:
        """Forward a local port to a pod of a Service while the context is open. Raises ClusterError."""
        lines = self.stream_lines("port-forward", f"service/{service}", ":80", "--address=127.0.0.1")
        with closing(lines) as output:
            for line in output:
                if address := _FORWARDED_PORT.match(line):
                    yield int(address[1])
                    return
        raise ClusterError(f"kubectl forwarded no port to Service {service}")

    @property
    def _stdin(self) -> int | None:
        return None if self.prompts else subprocess.DEVNULL

    def _start_process(self, arguments: Sequence[str], stdin: int | None) -> tuple[subprocess.Popen[str], _ErrorReader]:
        command = [*_find_program(), *self.flags, *arguments]
        reader, writer = os.pipe()
        errors = _ErrorReader(reader, shown=self.prompts)
        try:
            process = subprocess.Popen(command, stdin=stdin, stdout=subprocess.PIPE, stderr=writer, text=True)
        except OSError as error:
            os.close(reader)
            raise ClusterError(f"{' '.join([command[0], *arguments[:3]])}: {error}") from error
        finally:
            os.close(writer)
        errors.start()
        return process, errors


def _raise_on_failure(
    process: subprocess.Popen[str], errors: _ErrorReader, arguments: Sequence[str], output: str
) -> None:
    """Raise ClusterError, or a subclass, when kubectl failed."""
    # Children of kubectl may hold the pipe open after kubectl has ended.
    errors.join(1.0)
    if process.returncode:
        message = errors.kubectl_text.strip() or output.strip()
        error_type = NoSuchResource if "the server doesn't have a resource type" in message else ClusterError
        error_type = Forbidden if "forbidden" in message.lower() else error_type
        error_type = ClusterUnreachable if _CLUSTER_UNREACHABLE.match(message) else error_type
        raise error_type(_REASON_PREFIX.sub("", message) or f"kubectl {arguments[0]} ended with {process.returncode}")


def _find_program() -> list[str]:
    """Split KUBECTL, such as `k3s kubectl`; else find kubectl on the PATH."""
    configured = os.environ.get("KUBECTL", "").strip()
    if configured and shutil.which(configured) is None:
        try:
            return shlex.split(configured)
        except ValueError as error:
            raise ClusterError(f"KUBECTL can't be split into arguments: {error}") from error
    program = configured or shutil.which("kubectl")
    if not program:
        raise ClusterError("kubectl is not on the PATH: this plugin reaches the cluster through it")
    return [program]


def _wait_for_output(process: subprocess.Popen[str], stdin: str | None, errors: _ErrorReader) -> str:
    """Wait for the process and return its standard output. Raises ClusterError after the timeout."""
    try:
        return process.communicate(stdin, timeout=KUBECTL_TIMEOUT)[0]
    except subprocess.TimeoutExpired:
        pass
    limit = KUBECTL_TIMEOUT
    if errors.has_foreign_text:
        limit = SIGN_IN_TIMEOUT
        try:
            return process.communicate(timeout=SIGN_IN_TIMEOUT - KUBECTL_TIMEOUT)[0]
        except subprocess.TimeoutExpired:
            pass
    raise ClusterError(f"kubectl did not end within {limit:.0f} s")


class _ErrorReader(threading.Thread):
    """Reads kubectl's standard error. Prints output of other programs, such as the prompt of a credential plugin, at
    once; keeps kubectl's own messages."""

    def __init__(self, source: int, *, shown: bool) -> None:
        super().__init__(daemon=True)
        self.kubectl_text, self.has_foreign_text = "", False
        self._source, self._is_shown = source, shown
        self._line, self._shown_up_to, self._ended = "", 0, False

    def run(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        with os.fdopen(self._source, "rb", buffering=0) as source:
            while piece := source.read(4096):
                self._read_text(decoder.decode(piece))
        self._read_text(decoder.decode(b"", final=True))
        if self._line and self._is_from_kubectl(self._line):
            self.kubectl_text += self._line

    def _read_text(self, text: str) -> None:
        if self._shown_up_to and text.startswith(_KUBECTL_PREFIXES):
            # The user's Enter key ends a prompt's line, and is not part of this stream.
            self._end_line()
        for part in text.replace("\r\n", "\n").splitlines(keepends=True):
            self._line += part
            if not self._is_from_kubectl(self._line) and not self._may_be_from_kubectl(self._line):
                self._print_foreign(self._line[self._shown_up_to :])
                self._shown_up_to = len(self._line)
            if part.endswith("\n"):
                self._end_line()

    def _end_line(self) -> None:
        if not self._shown_up_to:
            if self._is_from_kubectl(self._line):
                self.kubectl_text += "" if _LOG_LINE.match(self._line) else self._line
                self._ended = self._ended or not _LOG_LINE.match(self._line)
            else:
                self._print_foreign(self._line)
        self._line, self._shown_up_to = "", 0

    def _is_from_kubectl(self, line: str) -> bool:
        if self._shown_up_to:
            return False
        return (
            self._ended
            or line.startswith(_KUBECTL_PREFIXES)
            or bool(_VALIDATION_ERROR.match(line) or _LOG_LINE.match(line))
        )

    def _may_be_from_kubectl(self, line: str) -> bool:
        """Return whether the rest of the line must arrive first."""
        if self._shown_up_to or line.endswith("\n"):
            return False
        is_prefix = any(text.startswith(line) for text in (*_KUBECTL_PREFIXES, "Warning: "))
        return is_prefix or _UNDECIDED_LINE.fullmatch(line) is not None

    def _print_foreign(self, text: str) -> None:
        if text.strip():
            self.has_foreign_text = True
        if self._is_shown:
            print_text(text, end="", error=True)


def _join_resources(kinds: Iterable[str]) -> str:
    return ",".join(f"{kind}.{GROUP}" for kind in kinds)
