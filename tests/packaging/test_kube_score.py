"""What kube-score says of the installs: nothing but what is left so on purpose, each with its reason."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable

import pytest
import yaml

from tests.packaging.render import INSTALL, Object, kustomize, template, tool

pytestmark = pytest.mark.chart

ON_PURPOSE = {
    "CPU limit is not set": "a leader that is throttled can't renew its Lease",
    "ImagePullPolicy is not set to Always": "images are named by version or digest",
    "The pod does not have a matching egress NetworkPolicy": "whom it asks (metrics servers, gateways) is the user's",
    "The pod does not have a matching NetworkPolicy": "an option of the chart, since peers are the user's",
}


def findings(found: list[Object]) -> set[tuple[str, str]]:
    """Kind, and what it warns of, without the name of the container."""
    command = [tool("kube-score"), "score", "-", "--kubernetes-version", "v1.34", "--output-format", "ci"]
    text = yaml.safe_dump_all(found)
    said = subprocess.run(command, input=text, capture_output=True, text=True, timeout=120, check=False)
    assert "[OK]" in said.stdout, said.stderr
    lines = re.findall(r"^\[(?:CRITICAL|WARNING)\] \S+ \S*?(\w+): (?:\(\S+\) )?(.*)$", said.stdout, re.MULTILINE)
    return set(lines)


@pytest.mark.parametrize(
    "render",
    [
        lambda: template(watchNamespaces=["vision"]),
        lambda: kustomize(INSTALL / "cluster"),
        lambda: kustomize(INSTALL / "namespaced"),
    ],
    ids=["chart", "kustomize", "kustomize for a namespace"],
)
def test_only_what_is_so_on_purpose(render: Callable[[], list[Object]]) -> None:
    assert {text for _, text in findings(render())} <= set(ON_PURPOSE)


def test_the_option_closes_the_operators_pods() -> None:
    for enabled, told in ((False, True), (True, False)):
        found = findings(template(networkPolicy={"enabled": enabled}))
        assert (("Deployment", "The pod does not have a matching NetworkPolicy") in found) is told
