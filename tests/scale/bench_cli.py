"""What it costs to start the kubectl plugin, beside a Python that does nothing: `make bench-cli`.

CPU time of the process and its children, the least of several runs: other work on the machine disturbs it less than
the time on the clock. Bytecode is compiled before, as pip and krew leave it.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
RUNS: Final = 20
TARGET: Final = 6.0
"""Times `python -c pass` that the help may cost."""
CALLS: Final = {
    "import typer": "import typer",
    "kubectl modelwright": "main([])",
    "kubectl modelwright --version": "main(['--version'])",
    "kubectl modelwright status --help": "main(['status', '--help'])",
    "kubectl modelwright explain Promoted": "main(['explain', 'Promoted'])",
    "kubectl modelwright new model": "main(['new', 'model'])",
}


def seconds(code: str, cache: str) -> float:
    """CPU seconds of a Python that runs this."""
    start = f"import sys; sys.path.append({str(ROOT / 'operator')!r}); "
    if "main(" in code:
        start += "from modelwright.cli.plugin import main; "
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-c", start + code]
    subprocess.run(
        command, env={**environment, "PYTHONPYCACHEPREFIX": cache}, stdout=subprocess.DEVNULL, check=True, timeout=60
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Print a line for each call."""
    with tempfile.TemporaryDirectory() as cache:
        for code in CALLS.values():
            seconds(code, cache)
        # In turn, so that a busy minute of the machine hits all of them.
        rounds = [{name: seconds(code, cache) for name, code in [("", "pass"), *CALLS.items()]} for _ in range(RUNS)]
    least = {name: min(one[name] for one in rounds) for name in rounds[0]}
    base = least.pop("")
    print(f"{'python -c pass':<38}{base * 1000:7.1f} ms")
    for name, found in least.items():
        print(f"{name:<38}{found * 1000:7.1f} ms  {found / base:5.1f} times")
    print(f"the help is to cost at most {TARGET:g} times")
    return 0


if __name__ == "__main__":
    sys.exit(main())
