"""Handlers of verbs on the pods of a Model: their logs, and inference requests."""

from __future__ import annotations

import http.client
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from modelwright.api import names
from modelwright.api.names import GROUP
from modelwright.cli.commands.command_support import Options, find_model
from modelwright.cli.kubectl import ClusterError, Forbidden, KubectlClient
from modelwright.cli.model_view import ModelView, ObjectNotFound
from modelwright.cli.printing import print_text
from modelwright.cli.user_error import UserError
from modelwright.core.request_paths import request_path

RESPONSE_TIMEOUT: Final = 60.0
"""Seconds that a model has to respond."""
MAX_LOG_PODS: Final = 100
"""The most pods whose logs kubectl follows at once; its own default is 5."""
_LOG_LINE: Final = re.compile(r"\[pod/([^/]+)/[^\]]+\] (.*)")


def logs(options: Options, kubectl: KubectlClient) -> int:
    """Print the logs of the model containers."""
    view = find_model(options.model, kubectl)
    version = options.version or (options.model if any(v.name == options.model for v in view.versions) else None)
    if not any(version in (None, pod.version) for pod in view.pods):
        raise ObjectNotFound(f"Model {view.model.name} has no pods{f' of version {version}' if version else ''}")
    labels = {names.LABEL_MODEL: names.label_value(view.model.name), names.LABEL_ROLE: names.ROLE_SERVING}
    if version is not None:
        labels[names.LABEL_VERSION] = names.label_value(version)
    arguments = [
        "logs",
        "-l",
        ",".join(f"{key}={value}" for key, value in labels.items()),
        "-c",
        names.MODEL_CONTAINER,
        "--prefix",
        f"--tail={options.tail}",
        f"--max-log-requests={MAX_LOG_PODS}",
        *(["--follow"] if options.follow else []),
        *(["--previous"] if options.previous else []),
    ]
    try:
        if options.output == "json" and not options.follow:
            print_text(json.dumps([_parse_log_line(line) for line in kubectl.stream_lines(*arguments)], indent=2))
        else:
            for line in kubectl.stream_lines(*arguments):
                print_text(json.dumps(_parse_log_line(line)) if options.output == "json" else line)
    except Forbidden as error:
        error.needs = "get and list on pods, and get on pods/log"
        raise
    return 0


def _parse_log_line(line: str) -> dict[str, str]:
    match = _LOG_LINE.fullmatch(line)
    return {"pod": match[1], "line": match[2]} if match is not None else {"pod": "", "line": line}


def predict(options: Options, kubectl: KubectlClient) -> int:
    """Send one request to a version of a Model, and print the response."""
    if options.file and options.sample:
        raise UserError("--file and --sample exclude each other")
    view = find_model(options.model, kubectl)
    version, revision = _target_revision(options, view)
    request = _read_request(options, view, version)
    path = options.path or request_path(_runtime_protocol(view, kubectl), view.model.name, request)
    if path is None:
        raise UserError("the path for this protocol is unknown: give it with --path")
    try:
        with kubectl.forward_port(names.revision_name(view.model.name, revision)) as port:
            status, body = _post_json(port, path, request)
    except Forbidden as error:
        error.needs = "get on services, get and list on pods, and create on pods/portforward"
        raise
    if status >= 300:
        raise UserError(f"version {version} answered POST {path} with {status}: {body[:2000]}")
    try:
        print_text(json.dumps(json.loads(body), indent=2, ensure_ascii=False))
    except ValueError as error:
        if options.output == "json":
            raise UserError(f"version {version} did not answer with JSON: {body[:200]}") from error
        print_text(body)
    return 0


def _target_revision(options: Options, view: ModelView) -> tuple[str, str]:
    """Return the version to send the request to, and its revision."""
    status = view.model.status
    named = options.version or (options.model if any(v.name == options.model for v in view.versions) else None)
    if named is None:
        if status.serving is None:
            raise ObjectNotFound(f"Model {view.model.name} serves nothing yet")
        return status.serving.version, status.serving.revision
    running = {share.version: share.revision for share in status.traffic}
    if status.target is not None and any(pod.version == status.target.version for pod in view.pods):
        running.setdefault(status.target.version, status.target.revision or "")
    if not running.get(named):
        raise ObjectNotFound(
            f"version {named} of Model {view.model.name} isn't running; {', '.join(running) or 'none'} is"
        )
    return named, running[named]


def _read_request(options: Options, view: ModelView, version: str) -> dict[str, Any]:
    if not options.file:
        samples = view.get_version(version).spec.samples
        if not samples:
            raise UserError(f"ModelVersion {version} has no spec.samples: give a request with --file")
        return dict(samples[0].request)
    text = sys.stdin.read() if options.file == "-" else Path(options.file).read_text()
    try:
        request = json.loads(text)
    except ValueError as error:
        raise UserError(f"{options.file} is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise UserError(f"{options.file} must hold a JSON object, the body of a request")
    return request


def _runtime_protocol(view: ModelView, kubectl: KubectlClient) -> str:
    """Read the protocol of the Model's runtime; V2, the default, when the user may not read the runtime."""
    runtime = view.model.status.runtime
    if runtime is None:
        return "V2"
    try:
        place = f"{runtime.kind.lower()}s.{GROUP}"
        return kubectl.run("get", place, runtime.name, "-o", "jsonpath={.spec.protocol}").strip() or "V2"
    except ClusterError:
        return "V2"


def _post_json(port: int, path: str, request: dict[str, Any]) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=RESPONSE_TIMEOUT)
    try:
        connection.request("POST", path, json.dumps(request), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException) as error:
        raise UserError(f"no answer to POST {path}: {error or type(error).__name__}") from error
    finally:
        connection.close()
