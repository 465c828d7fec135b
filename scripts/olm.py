"""Writes a bundle for the Operator Lifecycle Manager from the charts: `make bundle`.

OLM has no objects for admission policies and runtimes: docs/how-to/olm.md says how they are applied beside it.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from devcluster import parts
from modelwright.api.crd.definition import KINDS, crd_file_name
from modelwright.api.names import API_VERSION, GROUP, VERSION

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "modelwright"
PACKAGE = "modelwright"
CHANNEL = "alpha"
# The platform assigns users and groups: OLM is mostly OpenShift's, which gives each namespace its own.
VALUES = {"podSecurity": "Platform", "runtimes": {"enabled": False}}
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by")
"""Labels that would be wrong without Helm."""
FROM_CSV = {"Deployment", "ServiceAccount", "ClusterRoleBinding", "RoleBinding"}
"""Kinds that OLM creates from the ClusterServiceVersion."""
EXAMPLE_USER = "alice@example.com"

Json = dict[str, Any]

DESCRIPTION = """\
Modelwright looks after machine-learning models the way a good release engineer would. You declare a model, its
versions and a policy; it serves them, moves traffic step by step on evidence, takes it back when the evidence is bad,
and retrains when the world has moved.

OLM installs no admission policies and no runtimes. Apply them beside the operator, as an administrator:

    kubectl apply --server-side -k manifests/policies
    kubectl apply --server-side -k manifests/runtimes

Without the policies, commands and approvals are refused (`AdmissionPolicyMissing`).
"""


def rendered(values: Sequence[Path]) -> list[Json]:
    """Render the objects of the operator's chart, without its test."""
    parts.build(["helm"])
    command = [str(parts.binary_path("helm")), "template", PACKAGE, str(CHART), "--skip-tests", "--values", "-"]
    # Without a cluster helm would assume a Kubernetes version of its own.
    command += ["--kube-version", minimum(yaml.safe_load((CHART / "Chart.yaml").read_text()))]
    command += [word for path in values for word in ("--values", str(path))]
    done = subprocess.run(command, input=yaml.safe_dump(VALUES), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"scripts/olm.py: helm could not render {CHART.relative_to(ROOT)}:\n{done.stderr}")
    return [obj for obj in yaml.safe_load_all(done.stdout) if obj]


def minimum(chart: Json) -> str:
    """Return the oldest Kubernetes that a chart supports."""
    version: str = chart["kubeVersion"]
    return version.removeprefix(">=").removesuffix("-0")


def bundle(values: Sequence[Path] = ()) -> dict[str, str]:
    """Render the bundle: path -> text of every file. `values`: files for the chart, such as build/images.yaml."""
    objects = [_without_helm(obj) for obj in rendered(values)]
    roles = (ROOT / "manifests" / "rbac" / "user-roles.yaml").read_text()
    files = {f"manifests/{PACKAGE}.clusterserviceversion.yaml": _yaml(service_version(objects))}
    for kind in KINDS:
        files[f"manifests/{GROUP}_{kind.__crd__.plural}.yaml"] = (ROOT / "crds" / crd_file_name(kind)).read_text()
    for obj in [*objects, *yaml.safe_load_all(roles)]:
        if obj["kind"] not in FROM_CSV and not _is_given(obj):
            files[f"manifests/{obj['metadata']['name']}_{obj['kind'].lower()}.yaml"] = _yaml(obj)
    files["metadata/annotations.yaml"] = _yaml({"annotations": annotations()})
    labels = "".join(f"LABEL {key}={value}\n" for key, value in annotations().items())
    files["bundle.Dockerfile"] = (
        f"# The bundle as an image, which catalogs of OLM list.\nFROM scratch\n{labels}"
        "COPY manifests /manifests/\nCOPY metadata /metadata/\n"
    )
    return files


def annotations() -> dict[str, str]:
    """Build the annotations that OLM reads before the manifests."""
    name = "operators.operatorframework.io.bundle"
    return {
        f"{name}.mediatype.v1": "registry+v1",
        f"{name}.manifests.v1": "manifests/",
        f"{name}.metadata.v1": "metadata/",
        f"{name}.package.v1": PACKAGE,
        f"{name}.channels.v1": CHANNEL,
        f"{name}.channel.default.v1": CHANNEL,
    }


def service_version(objects: Sequence[Json]) -> Json:
    """Build the ClusterServiceVersion of the chart's objects."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    (deployment,) = (obj for obj in objects if obj["kind"] == "Deployment")
    account = deployment["spec"]["template"]["spec"]["serviceAccountName"]
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return {
        "apiVersion": "operators.coreos.com/v1alpha1",
        "kind": "ClusterServiceVersion",
        "metadata": {
            "name": f"{PACKAGE}.v{chart['version']}",
            "annotations": {
                "alm-examples": json.dumps(examples(), indent=2),
                "capabilities": "Full Lifecycle",
                "categories": "AI/Machine Learning",
                "containerImage": image,
                "description": chart["description"],
                # Records, which are not created first.
                "operators.operatorframework.io/internal-objects": json.dumps([f"modelrollouts.{GROUP}"]),
            },
        },
        "spec": {
            "displayName": "Modelwright",
            "description": DESCRIPTION,
            "version": chart["version"],
            "maturity": "alpha",
            "minKubeVersion": minimum(chart),
            "keywords": chart["keywords"],
            "provider": {"name": "Modelwright"},
            "maintainers": [{"name": "Modelwright", "email": "modelwright@example.com"}],
            "links": [{"name": "Documentation", "url": "https://example.com/modelwright/docs"}],
            # A namespaced installation needs other rights: use Helm (watchNamespaces) or kustomize for it.
            "installModes": [
                {"type": mode, "supported": mode == "AllNamespaces"}
                for mode in ("OwnNamespace", "SingleNamespace", "MultiNamespace", "AllNamespaces")
            ],
            "customresourcedefinitions": {"owned": [_owned(kind) for kind in KINDS]},
            "relatedImages": _images(deployment),
            "install": {
                "strategy": "deployment",
                "spec": {
                    "clusterPermissions": _permissions(objects, "ClusterRole", account),
                    "permissions": _permissions(objects, "Role", account),
                    "deployments": [
                        {
                            "name": deployment["metadata"]["name"],
                            "label": deployment["metadata"]["labels"],
                            "spec": deployment["spec"],
                        }
                    ],
                },
            },
        },
    }


def examples() -> list[Json]:
    """Return one example of each kind that users write, from the samples."""
    files = [
        *(f"manifests/samples/{name}.yaml" for name in ("model", "version-1", "rollout-policy")),
        "examples/digits/retraining-policy.yaml",
        "manifests/runtimes/mlserver.yaml",
    ]
    documents = [yaml.safe_load((ROOT / name).read_text()) for name in files]
    runtime = documents[-1]
    return [
        *(_named_only(obj) for obj in documents),
        _named_only({**runtime, "kind": "ModelRuntime"}),
        _record("TrainingRun", "digits-labels", policyRef={"name": "digits"}, manual=_by("labels of October are in")),
        _record(
            "ModelRollout",
            "digits-back",
            modelRef={"name": "digits"},
            target={"version": "digits-v1"},
            rollback=_by("wrong answers since noon"),
        ),
        _record(
            "Approval",
            "digits-1-alice",
            modelRef={"name": "digits"},
            rollout={"name": "digits-1", "uid": "00000000-0000-0000-0000-000000000000"},
            contentHash="0" * 16,
            decision="Approve",
            approver=EXAMPLE_USER,
            reason="figures of the holdout checked",
        ),
    ]


def _by(reason: str) -> Json:
    return {"by": EXAMPLE_USER, "reason": reason}


def _record(kind: str, name: str, **spec: Any) -> Json:
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": spec}


def _named_only(obj: Json) -> Json:
    """Remove the namespace: a console creates the object in its user's."""
    return {**obj, "metadata": {"name": obj["metadata"]["name"]}}


def _owned(kind: Any) -> Json:
    return {
        "name": f"{kind.__crd__.plural}.{GROUP}",
        "version": VERSION,
        "kind": kind.__name__,
        "displayName": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", kind.__name__),
        "description": kind.__crd__.description,
    }


def _images(deployment: Json) -> list[Json]:
    """List the images of the operator and its pods, for clusters that mirror them."""
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    variables = {entry["name"]: entry.get("value") for entry in container["env"]}
    return [
        {"name": "operator", "image": container["image"]},
        {"name": "fetch", "image": variables["MODELWRIGHT_FETCH_IMAGE"]},
    ]


def _permissions(objects: Sequence[Json], kind: str, account: str) -> list[Json]:
    """Return the rules of the roles of `kind` that are bound to the operator's account."""
    bound = {
        obj["roleRef"]["name"]
        for obj in objects
        if obj["kind"] == f"{kind}Binding" and any(subject["name"] == account for subject in obj["subjects"])
    }
    roles = [obj for obj in objects if obj["kind"] == kind and obj["metadata"]["name"] in bound]
    return [{"serviceAccountName": account, "rules": [rule for role in roles for rule in role["rules"]]}]


def _is_given(obj: Json) -> bool:
    """Return whether it is a role contained in the ClusterServiceVersion."""
    name: str = obj["metadata"]["name"]
    return (obj["kind"] == "ClusterRole" and name == PACKAGE) or obj["kind"] == "Role"


def _without_helm(obj: Json) -> Json:
    metadata = {key: value for key, value in obj["metadata"].items() if key != "namespace"}
    labels = {key: value for key, value in metadata.get("labels", {}).items() if key not in HELM_LABELS}
    return {**obj, "metadata": {**metadata, "labels": labels}}


class _Dumper(yaml.SafeDumper):
    """Safe YAML with long texts as blocks, and without aliases."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def _yaml(content: Mapping[str, Any]) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=10_000, allow_unicode=True)


def main(arguments: list[str]) -> int:
    """Write the bundle, replacing an existing one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("dist/olm"), help="folder (default: dist/olm)")
    parser.add_argument("--values", type=Path, action="append", default=[], help="values of the chart; may be repeated")
    options = parser.parse_args(arguments)
    files = bundle(options.values)
    for folder in {name.partition("/")[0] for name in files if "/" in name}:
        shutil.rmtree(options.output / folder, ignore_errors=True)
    for name, text in files.items():
        path = options.output / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    print(f"{options.output}: {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
