"""`doctor` as a command: what it asks kubectl for, what it prints, and what it does for users with few rights."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from modelwright.api.reasons import FETCH_REASONS, Reason
from modelwright.api.remedies import REMEDIES
from modelwright.cli import plugin
from modelwright.cli.doctor import cluster_reader, run_doctor
from modelwright.cli.doctor.checks.install import ADMISSION_POLICIES, MINIMUM_KUBERNETES
from modelwright.cli.doctor.doctor_report import MAX_PRINTED, report_lines
from modelwright.cli.doctor.facts import Facts
from modelwright.cli.doctor.registry import DoctorFinding, Severity
from modelwright.cli.doctor.roles import ROLES
from modelwright.cli.kubectl import ClusterError, Forbidden
from modelwright.cli.model_view import ObjectNotFound
from tests.unit.cli.doctor import cluster
from tests.unit.cli.doctor.cluster import GATEWAYS, HOME, NS, meta

Json = dict[str, Any]
PATHS = {path: name for name, path in cluster_reader._API_DOCUMENTS.items()}
CLUSTER_WIDE = ("--all-namespaces", "validatingadmission", "gatewayclasses", "clustermodelruntimes", "namespaces ")


class Kubectl:
    """Answers as kubectl does, from facts. `refuses`: the commands that this user may not give, as one text."""

    def __init__(self, facts: Facts, refuses: Callable[[str], bool] = lambda _: False, flags: Sequence[str] = ()):
        self.flags = flags
        self.calls: list[str] = []
        self._facts, self._refuses = facts, refuses

    def run(self, *arguments: str, stdin: str | None = None) -> str:
        text = " ".join(arguments)
        self.calls.append(text)
        if self._refuses(text):
            raise Forbidden(f'User "vic" cannot do: {text}')
        if text.startswith("config view"):
            return NS
        if arguments[0] == "create":
            return self._created(text, json.loads(stdin or ""))
        if arguments[1] == "--raw":
            return self._document(arguments[2])
        found = self._found(arguments[1].partition(".")[0], arguments)
        if "go-template" in text:
            return "".join("\t".join((obj["metadata"]["name"], *obj["keys"])) + "\n" for obj in found)
        if "--ignore-not-found" in arguments and not found:
            return ""
        return json.dumps(found[0] if "--ignore-not-found" in arguments and len(found) == 1 else {"items": found})

    def _found(self, plural: str, arguments: Sequence[str]) -> list[Json]:
        flags = dict(itertools.pairwise(arguments))
        name = f"operator-{plural}" if flags.get("-l") == cluster_reader.OPERATOR_SELECTOR else plural
        candidates = [obj for key in (name, f"{plural}/{flags.get('-n')}") for obj in self._facts.objects.get(key, ())]
        space = flags.get("-n")
        there = [obj for obj in candidates if space is None or obj["metadata"].get("namespace") == space]
        if "--ignore-not-found" in arguments:
            there = [obj for obj in there if obj["metadata"]["name"] in arguments]
        return there

    def _document(self, path: str) -> str:
        found = self._facts.objects.get("server" if path == "/version" else PATHS[path])
        if not found:
            raise ClusterError("the server could not find the requested resource")
        return json.dumps(found[0])

    def _created(self, text: str, body: Json) -> str:
        if "--dry-run=server" in text:
            return json.dumps({**body, "metadata": {**body["metadata"], "name": "x"}})
        rights = (each["spec"]["resourceAttributes"] for each in body["items"])
        return "".join(f"{r['group']}\t{r['resource']}\t{r['verb']}\ttrue\n" for r in rights)


def run(kubectl: Kubectl, model: str | None = None, namespace: str | None = None, output: str = "text") -> int:
    options = Namespace(model=model, namespace=namespace, output=output)
    return run_doctor.run_doctor(options, cast("Any", kubectl))


def test_it_needs_nothing_but_what_the_plugins_extra_installs() -> None:
    missing = ("kopf", "kubernetes", "aiohttp", "promql_parser", "cel_expr_python", "prometheus_client")
    code = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); "
    code += "from modelwright.cli.doctor import checks, cluster_reader, doctor_report, registry"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_healthy_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = Kubectl(cluster.healthy())
    assert run(kubectl) == 0
    *reported, last = capsys.readouterr().out.splitlines()
    assert last == "0 faults, 0 warnings, 0 not permitted to see"
    assert all(line.startswith("ok ") for line in reported)
    assert all(
        call.startswith(("get ", "create -f - -o jsonpath", "create --dry-run=server ")) for call in kubectl.calls
    )


def test_a_fault_is_the_exit_code_and_is_data_too(capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = Kubectl(cluster.but({f"secrets/{NS}": []}))
    assert run(kubectl, output="json") == 1
    reported = json.loads(capsys.readouterr().out)
    assert reported["faults"] == 1
    (fault,) = (one for one in reported["findings"] if one["level"] == "fault")
    assert (fault["check"], fault["about"]) == ("Secrets", f"Secret {NS}/store")


def test_values_of_secrets_are_never_printed_by_kubectl() -> None:
    kubectl = Kubectl(cluster.healthy())
    run(kubectl)
    asked = [call for call in kubectl.calls if "secret" in call]
    assert asked
    for call in asked:
        assert "-o go-template=" in call
        assert "{{$value}}" not in call


def test_who_sees_one_namespace_is_answered_for_that(capsys: pytest.CaptureFixture[str]) -> None:
    """And each check that needs more says what it was not allowed to see."""
    kubectl = Kubectl(
        cluster.healthy(),
        lambda text: (
            text.startswith("get ") and any(part in text for part in (*CLUSTER_WIDE, HOME, GATEWAYS, "kube-system"))
        ),
    )
    assert run(kubectl) == 0
    reported = capsys.readouterr().out.splitlines()
    hidden = {
        line.removeprefix("not permitted").strip().partition(":")[0] for line in reported if line.startswith("not ")
    }
    assert hidden == {
        "operator",
        "leader",
        "admission",
        "gateways",
        "features",
        "connections",
        "runtimes",
        "operator's Secrets",
    }
    assert any(line.startswith("ok") and "Secrets: every Secret" in line for line in reported)
    assert any("you may view, edit, command, approve in namespace vision" in line for line in reported)


def test_who_sees_nothing_at_all_is_shown_that(capsys: pytest.CaptureFixture[str]) -> None:
    kubectl = Kubectl(cluster.healthy(), lambda text: text.startswith("get ") and "--raw" not in text)
    assert run(kubectl) == 0
    reported = capsys.readouterr().out.splitlines()
    assert any(line.startswith("not permitted  Models: ") for line in reported)


def test_without_a_cluster_there_is_one_error(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECTL", "/nowhere/kubectl")
    assert plugin.main(["doctor"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def other() -> Json:
    """A Model in the same namespace that is Stalled."""
    found = cluster.model() | {"metadata": meta("other")}
    reported = [cluster.condition("Stalled", "True", "RouteConflict")]
    return found | {"status": {"observedGeneration": 1, "conditions": reported}}


def test_one_model_is_checked_alone(capsys: pytest.CaptureFixture[str]) -> None:
    facts = cluster.but(models=[cluster.model(), other()])
    assert run(Kubectl(facts)) == 1
    assert run(Kubectl(facts), "digits") == 0
    assert run(Kubectl(facts), "v1") == 0
    assert run(Kubectl(facts), "other", NS) == 1
    assert "Model vision/other" in capsys.readouterr().out


def test_the_runs_of_one_model_are_those_of_its_policies(capsys: pytest.CaptureFixture[str]) -> None:
    policies = [
        {"kind": "RetrainingPolicy", "metadata": meta(name), "spec": {"modelRef": {"name": name}}}
        for name in ("digits", "other")
    ]
    failed = {"state": "Failed", "reason": "StageFailed", "message": "exit code 1"}
    runs = [
        {"kind": "TrainingRun", "metadata": meta(f"{name}-1"), "spec": {"policyRef": {"name": name}}, "status": failed}
        for name in ("digits", "other")
    ]
    facts = cluster.but(models=[cluster.model(), other()], retrainingpolicies=policies, trainingruns=runs)
    assert run(Kubectl(facts), "digits") == 0
    printed = capsys.readouterr().out
    assert "TrainingRun vision/digits-1" in printed
    assert "TrainingRun vision/other-1" not in printed


def test_a_model_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ObjectNotFound, match="there are digits"):
        run(Kubectl(cluster.healthy()), "nosuch")


def test_a_namespace_flag_overrides_the_context() -> None:
    kubectl = Kubectl(cluster.healthy(), flags=("--namespace=elsewhere",))
    with pytest.raises(ObjectNotFound):
        run(kubectl, "digits")
    assert any("-n elsewhere" in call for call in kubectl.calls)


def test_one_time_out_does_not_end_it(capsys: pytest.CaptureFixture[str]) -> None:
    class Slow(Kubectl):
        def run(self, *arguments: str, stdin: str | None = None) -> str:
            if arguments[1].startswith("resourcequotas"):
                raise ClusterError("kubectl did not end within 60 s")
            return super().run(*arguments, stdin=stdin)

    assert run(Slow(cluster.healthy())) == 0
    assert "quotas: could not be read" in capsys.readouterr().out


def test_many_findings_of_one_check_are_cut_and_counted() -> None:
    findings = [
        ("Models", DoctorFinding(Severity.FAULT, f"Model a/m{number}", "x", "y")) for number in range(MAX_PRINTED + 5)
    ]
    reported = list(report_lines(findings))
    assert reported[MAX_PRINTED].strip() == "Models: 5 more; -o json has all"
    assert reported[-1].startswith(f"{MAX_PRINTED + 5} faults")


def test_a_message_of_several_lines_is_one() -> None:
    (line, _) = report_lines([("pods", DoctorFinding(Severity.FAULT, "Pod a/b", "one\ntwo\n", "z"))])
    assert line == "fault          pods: Pod a/b: one two; cure: z"


def test_the_rights_asked_for_are_those_of_the_shipped_roles() -> None:
    text = (cluster.ROOT / "manifests/rbac/user-roles.yaml").read_text()
    shipped = {role["metadata"]["name"]: role["rules"] for role in yaml.safe_load_all(text)}
    for role, rights in ROLES.items():
        given = {
            (plural, verb)
            for rule in shipped[f"modelwright-{role}"]
            for plural in rule["resources"]
            for verb in rule["verbs"]
        }
        assert set(rights) <= given, role


def test_the_policies_looked_for_are_the_shipped_ones() -> None:
    shipped = cluster.manifests("manifests/policies/*.yaml")
    assert set(ADMISSION_POLICIES) == {
        o["metadata"]["name"] for o in shipped if o["kind"] == "ValidatingAdmissionPolicy"
    }


@pytest.mark.parametrize("chart", ["modelwright", "modelwright-crds"])
def test_the_oldest_kubernetes_is_that_of_the_charts(chart: str) -> None:
    wanted = yaml.safe_load((cluster.ROOT / f"charts/{chart}/Chart.yaml").read_text())["kubeVersion"]
    assert wanted == f">={MINIMUM_KUBERNETES[0]}.{MINIMUM_KUBERNETES[1]}.0-0"


def test_reasons_that_stall_have_a_cure() -> None:
    """Those of the section of api/reasons.py that says so, and what fetching reports."""
    text = Path(cluster.ROOT / "operator/modelwright/api/reasons.py").read_text()
    names = [
        line.split()[0]
        for line in text[text.index("# The spec cannot be fulfilled") :].splitlines()
        if line.startswith("    ") and line.strip().isascii() and " = " in line
    ]
    stalling = {Reason[name] for name in names if name.isupper()} | FETCH_REASONS
    assert stalling - REMEDIES.keys() == {
        # Events about what is seen elsewhere.
        Reason.STATUS_TOO_LARGE,
        Reason.ANOTHER_INSTALL,
        # Reported beside a metric that is within its limits: it passes when requests end.
        Reason.REQUESTS_NOT_ENDED,
    }
