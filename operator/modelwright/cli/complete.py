"""Shell completion: kubectl runs `kubectl_complete-modelwright` with the words so far, the last one unfinished, and
takes one candidate a line and at the end a directive of cobra's (4: no file names)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from modelwright.cli.cluster import Cluster, ClusterError
from modelwright.cli.plugin import subcommands
from modelwright.cli.printing import say
from modelwright.cli.verbs import DRAFTS

NO_FILES, FILES = 4, 0
_OF_KUBECTL = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}
Names = Callable[[Sequence[str], str], Iterable[str]]


_OBJECTS = {
    "diff": ("modelversions", "modelversions"),
    "set-version": ("models", "modelversions"),
    "run": ("", "trainingruns"),
}
"""Which objects the arguments of a verb name; of all others the first one names a Model."""
_OF_OPTIONS = {
    "--to": "modelversions",
    "--version": "modelversions",
    "--rollout": "modelrollouts",
    "--policy": "retrainingpolicies",
    "--model": "models",
}


def complete(words: Sequence[str], names: Names) -> tuple[list[str], int]:
    """Candidates and directive for the last word. `names` gives the names of a kind of object, for flags of kubectl."""
    *before, last = words or [""]
    known = subcommands()
    at = next((index for index, word in enumerate(before) if word in known), None)
    if at is None:
        return _chosen(known, last), NO_FILES
    command, options = before[at], known[before[at]]
    option = before[-1] if options.get(before[-1]) else ""
    if last.startswith("-"):
        return _chosen((name for name in options if name.startswith("--")), last), NO_FILES
    if option in ("-o", "--output"):
        return ([], FILES) if command == "plot" else (_chosen(("json", "text"), last), NO_FILES)
    if option:
        kind = _OF_OPTIONS.get(option, "")
        return ([], FILES) if option in _FILE_OPTIONS else (_named(names, before, kind, last), NO_FILES)
    given = _arguments(before[at + 1 :], options)
    if command == "lint" or (command == "import" and given):
        return [], FILES
    words_of = _WORDS.get(command)
    if words_of is not None and not given:
        return _chosen(words_of(), last), NO_FILES
    kinds = () if command in _WITHOUT_OBJECTS else _OBJECTS.get(command, ("models",))
    return _named(names, before, kinds[given] if given < len(kinds) else "", last), NO_FILES


def _reasons() -> Iterable[str]:
    from modelwright.api.reasons import Reason

    return map(str, Reason)


def _projects() -> Iterable[str]:
    from modelwright.cli.imports.run import registry

    return registry()


_WORDS: Mapping[str, Callable[[], Iterable[str]]] = {
    "explain": _reasons,
    "import": _projects,
    "new": lambda: DRAFTS,
    "run": lambda: ("cancel",),
}
"""What the first argument of a verb is one of."""
_WITHOUT_OBJECTS = ("explain", "import", "list", "new", "version")
_FILE_OPTIONS = ("--kubeconfig", "--file", "-f")


def _chosen(candidates: Iterable[str], last: str) -> list[str]:
    return sorted(word for word in candidates if word.startswith(last))


def _named(names: Names, before: Sequence[str], kind: str, last: str) -> list[str]:
    return _chosen(names(_flags(before), kind), last) if kind else []


def _arguments(words: Sequence[str], options: Mapping[str, bool]) -> int:
    """How many of the words are arguments: neither options nor their values."""
    values = {index + 1 for index, word in enumerate(words) if options.get(word)}
    return sum(not word.startswith("-") and index not in values for index, word in enumerate(words))


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
