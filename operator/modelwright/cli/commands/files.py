"""Handlers of verbs on files: checking manifests, drafting them, and importing objects of other projects."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from modelwright.cli import drafts, kustomization, lint_reports, yaml_source
from modelwright.cli import manifest_lint as linting
from modelwright.cli.commands.command_support import FAILED, Options
from modelwright.cli.imports import importer as imports
from modelwright.cli.imports.foreign_objects import ImportedObject, Provider
from modelwright.cli.imports.foreign_objects import ImportOptions as Asked
from modelwright.cli.kubectl import Forbidden, KubectlClient, NoSuchResource
from modelwright.cli.printing import print_text
from modelwright.cli.user_error import UserError


class UnreadableFile(UserError):
    """A file is not valid YAML; the text names the file and the problem."""


def lint(options: Options, kubectl: KubectlClient) -> int:
    files = [file for path in options.files for file in _read_manifests(Path(path), kubectl)]
    dry_run = None if options.offline else kubectl.dry_run
    findings = linting.lint_files(files, dry_run)
    errors = sum(finding.is_error for finding in findings)
    if options.output == "json":
        report: dict[str, Any] = {
            "findings": [asdict(finding) | {"wrong": finding.is_error} for finding in findings],
            "errors": errors,
        }
        print_text(json.dumps(report | ({"notChecked": linting.OFFLINE_NOTE} if options.offline else {}), indent=2))
        return FAILED if errors else 0
    if options.output == "sarif":
        print_text(json.dumps(lint_reports.sarif_report(findings), indent=2))
        return FAILED if errors else 0
    if options.output == "github":
        for line in lint_reports.github_commands(findings):
            print_text(line, commands=True)
        return FAILED if errors else 0
    for finding in findings:
        print_text(f"{finding.level}: {finding.location}: {finding.text}")
    if options.offline:
        print_text(linting.OFFLINE_NOTE)
    print_text(f"{errors} errors" if errors else "no findings")
    return FAILED if errors else 0


def new(options: Options, _: KubectlClient) -> int:
    """Print a manifest to edit."""
    text = drafts.render_draft(options.kind, options.name, options.model)
    if options.output == "json":
        print_text(json.dumps(yaml.safe_load(text), indent=2))
    else:
        print_text(text, end="")
    return 0


def import_(options: Options, kubectl: KubectlClient) -> int:
    """Print imported manifests, each preceded by comments that list the remaining work."""
    provider = imports.load_providers()[options.source]
    import_options = Asked(options.gateway, options.domain)
    try:
        objects = _collect_objects(provider, options.names or (), kubectl)
    except Forbidden as error:
        error.needs = f"get and list on {', '.join(provider.resources)}"
        raise
    results, others = imports.import_objects(provider, objects, import_options)
    for result in results:
        print_text(_render_comments(result), error=options.output == "json")
        if options.output != "json":
            print_text("---\n".join(_dump_yaml(obj) for obj in result.objects), end="---\n" if result.objects else "")
    if options.output == "json":
        items = [obj for result in results for obj in result.objects]
        # YAML has timestamps, which JSON lacks.
        print_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}, indent=2, default=str))
    if others:
        counts = ", ".join(f"{number} {kind}" for kind, number in sorted(others.items()))
        print_text(f"skipped, since they are not objects of {provider.title}: {counts}", error=True)
    imported = sum(bool(result.objects) or result.is_part for result in results)
    print_text(f"{imported} of {len(results)} objects of {provider.title} imported", error=True)
    return 0 if results and imported == len(results) else FAILED


def _render_comments(result: ImportedObject) -> str:
    lines = [f"{result.kind} {result.name}", *(f"- {note}" for note in result.notes)]
    for draft in result.drafts:
        lines += ["", *_dump_yaml(draft).splitlines(), "---"]
    # A line break in an object's text must not end the comment that contains it.
    return "\n".join(f"# {part}".rstrip() for line in lines for part in (line.splitlines() or [""]))


def _dump_yaml(obj: dict[str, Any]) -> str:
    return yaml.safe_dump(obj, sort_keys=False, allow_unicode=True, width=1000)


def _collect_objects(provider: Provider, names: Sequence[str], kubectl: KubectlClient) -> list[Any]:
    """Collect the named objects from files and the cluster; without names, list all objects of the provider."""
    object_names = [name for name in names if not _names_file(name)]
    objects = [
        document
        for name in names
        if _names_file(name)
        for path in _list_files(Path(name))
        for document in _read_objects(path)
    ]
    if object_names:
        listed = json.loads(kubectl.run("get", provider.resources[0], *object_names, "-o", "json"))
        objects += listed.get("items", [listed])
        if provider.parts:
            listed = _list_resources(provider.resources[1:], kubectl)
            objects += [each for each in listed if provider.owns(each) and each["kind"] in provider.parts]
    elif not names:
        objects += _list_resources(provider.resources, kubectl)
    return objects


def _list_resources(resources: Sequence[str], kubectl: KubectlClient) -> list[Any]:
    """List all objects of these resources. Raises NoSuchResource when the cluster has none of the resources."""
    objects, missing = [], []
    for resource in resources:
        try:
            objects += json.loads(kubectl.run("get", resource, "-o", "json"))["items"]
        except NoSuchResource as error:
            missing.append(error)
    if resources and len(missing) == len(resources):
        raise missing[0]
    return objects


def _names_file(name: str) -> bool:
    return name == "-" or name.endswith((".yaml", ".yml", ".json")) or "/" in name or Path(name).is_dir()


def _read_objects(path: Path) -> list[Any]:
    try:
        return [each.content for each in yaml_source.read_documents(path.read_text())]
    except ValueError as error:
        line = f":{error.line}" if isinstance(error, yaml_source.InvalidYaml) and error.line else ""
        raise UnreadableFile(f"{path}{line} is not YAML: {error}") from error


def _read_manifests(path: Path, kubectl: KubectlClient) -> list[tuple[str, str]]:
    """Read the files at a path as (name, text); a folder with a kustomization is built by kubectl."""
    if kustomization.is_kustomization(path):
        try:
            kustomization.require_local(path)
        except kustomization.NotLocal as error:
            raise UserError(
                f"{error}, and lint fetches nothing. If you trust it: kubectl kustomize {path} | "
                "kubectl modelwright lint -"
            ) from error
        return [(f"{path} (kustomize)", kubectl.build_kustomization(path))]
    return [(str(file), file.read_text()) for file in _list_files(path)]


def _list_files(path: Path) -> list[Path]:
    if str(path) == "-":
        return [Path("/dev/stdin")]
    if path.is_dir():
        return sorted([*path.rglob("*.yaml"), *path.rglob("*.yml")])
    return [path]
