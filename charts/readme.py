"""Write the charts' READMEs with helm-docs, from Chart.yaml and values.yaml; `--check` only reports differences.

A value without a comment is refused. helm-docs is built on first use, which needs Go.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from devcluster import parts

CHARTS = Path(__file__).resolve().parent
NAMES = ("modelwright", "modelwright-crds")
TEMPLATE = "./README.md.gotmpl"
"""From the folder of the charts."""


def render_readme(name: str) -> str:
    """Render the README of a chart."""
    parts.build(["helm-docs"])
    command = [
        str(parts.binary_path("helm-docs")),
        "--dry-run",
        "--log-level=warning",
        "--sort-values-order=file",
        f"--template-files={TEMPLATE}",
        "--chart-search-root=.",
        f"--chart-to-generate={name}",
    ]
    done = subprocess.run(command, cwd=CHARTS, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"charts/readme.py: helm-docs rendered no README of {name}:\n{done.stderr}")
    # Its strict mode doesn't recognise comments above their value.
    bare = re.findall(r"^\| (`\S+`) .*\|  \|$", done.stdout, re.MULTILINE)
    if bare:
        raise SystemExit(f"charts/{name}/values.yaml: {', '.join(bare)} need a comment that starts with `# -- `")
    return done.stdout.strip() + "\n"


def main(arguments: list[str]) -> int:
    """Write the READMEs; with `--check`, return 1 if one differs."""
    stale = {}
    for name in NAMES:
        path, text = CHARTS / name / "README.md", render_readme(name)
        if not path.exists() or path.read_text() != text:
            stale[path] = text
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(CHARTS.parent)} differs from its values: run `make generate`", file=sys.stderr)
        return 1 if stale else 0
    for path, text in stale.items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
