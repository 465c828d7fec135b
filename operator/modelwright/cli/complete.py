"""Shell completion: kubectl runs `kubectl_complete-modelwright` with the words so far, the last one unfinished, and
takes one candidate a line and at the end a directive of cobra's (4: no file names)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Sequence

from modelwright.cli.cluster import Cluster, ClusterError
from modelwright.cli.imports.run import registry
from modelwright.cli.plugin import subcommands
from modelwright.cli.printing import say

NO_FILES, FILES = 4, 0
_OF_KUBECTL = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}
Names = Callable[[Sequence[str], str], Iterable[str]]


def complete(words: Sequence[str], names: Names) -> tuple[list[str], int]:
    """Candidates and directive for the last word. `names` gives the names of a kind of object, for flags of kubectl."""
    *before, last = words or [""]
    known = subcommands()
    command = next((word for word in before if word in known), None)
    if command is None:
        found: Iterable[str] = known
    elif last.startswith("-"):
        found = (option for option in known[command] if option.startswith("--"))
    elif command == "import" and before[-1] == command:
        found = registry()
    elif command == "lint" or (command == "import" and not known[command].get(before[-1])):
        return [], FILES
    else:
        option = before[-1] if known[command].get(before[-1]) else ""
        if option in ("-o", "--output"):
            return ([], FILES) if command == "plot" else (["json", "text"], NO_FILES)
        kind = {"--to": "modelversions", "--version": "modelversions", "--rollout": "modelrollouts",
                "--policy": "retrainingpolicies", "": "modelversions" if command == "diff" else "models"}  # fmt: skip
        found = names(_flags(before), kind[option]) if option in kind else ()
    return sorted(word for word in found if word.startswith(last)), NO_FILES


def main() -> int:
    """Print them; silence is better than an error in the middle of a line."""
    found, directive = complete(sys.argv[1:], _names)
    say("\n".join([*found, f":{directive}"]))
    return 0


def _flags(words: Sequence[str]) -> list[str]:
    pairs = zip(words, [*words[1:], ""], strict=True)
    spaced = [f"--{_OF_KUBECTL[word]}={value}" for word, value in pairs if word in _OF_KUBECTL]
    return spaced + [word for word in words if word.partition("=")[0] in _OF_KUBECTL and "=" in word]


def _names(flags: Sequence[str], kind: str) -> Iterable[str]:
    try:
        return Cluster(tuple(flags), prompts=False).names(kind)
    except ClusterError:
        return ()


if __name__ == "__main__":
    sys.exit(main())
