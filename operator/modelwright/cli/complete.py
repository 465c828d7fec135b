"""Shell completion. kubectl runs `kubectl_complete-modelwright` with the arguments so far, the last one unfinished,
and reads one candidate per line and then a directive of cobra (4: no file names)."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping, Sequence

from modelwright.cli.kubectl import ClusterError, KubectlClient
from modelwright.cli.plugin import verb_options
from modelwright.cli.printing import print_text
from modelwright.cli.verbs import DRAFT_KINDS

NO_FILES, FILES = 4, 0
_KUBECTL_FLAGS = {"-n": "namespace", "--namespace": "namespace", "--context": "context", "--kubeconfig": "kubeconfig"}
ListNames = Callable[[Sequence[str], str], Iterable[str]]


_ARGUMENT_KINDS = {
    "diff": ("modelversions", "modelversions"),
    "set-version": ("models", "modelversions"),
    "run": ("", "trainingruns"),
}
"""The kinds of object that a verb's arguments name; for other verbs the first argument names a Model."""
_OPTION_KINDS = {
    "--to": "modelversions",
    "--version": "modelversions",
    "--rollout": "modelrollouts",
    "--policy": "retrainingpolicies",
    "--model": "models",
}


def complete_words(words: Sequence[str], names: ListNames) -> tuple[list[str], int]:
    """Return the candidates and the directive for the last argument. `names` lists the objects of a kind, given
    kubectl's flags."""
    *before, last = words or [""]
    verbs = verb_options()
    at = next((index for index, word in enumerate(before) if word in verbs), None)
    if at is None:
        return _filter_candidates(verbs, last), NO_FILES
    command, options = before[at], verbs[before[at]]
    option = before[-1] if options.get(before[-1]) else ""
    if last.startswith("-"):
        return _filter_candidates((name for name in options if name.startswith("--")), last), NO_FILES
    if option in ("-o", "--output"):
        return ([], FILES) if command == "plot" else (_filter_candidates(("json", "text"), last), NO_FILES)
    if option:
        kind = _OPTION_KINDS.get(option, "")
        return ([], FILES) if option in _FILE_OPTIONS else (_complete_names(names, before, kind, last), NO_FILES)
    argument_count = _count_arguments(before[at + 1 :], options)
    if command == "lint" or (command == "import" and argument_count):
        return [], FILES
    words_of = _FIRST_ARGUMENTS.get(command)
    if words_of is not None and not argument_count:
        return _filter_candidates(words_of(), last), NO_FILES
    kinds = () if command in _VERBS_WITHOUT_OBJECTS else _ARGUMENT_KINDS.get(command, ("models",))
    return _complete_names(names, before, kinds[argument_count] if argument_count < len(kinds) else "", last), NO_FILES


def _list_reasons() -> Iterable[str]:
    from modelwright.api.reasons import Reason

    return map(str, Reason)


def _list_projects() -> Iterable[str]:
    from modelwright.cli.imports.importer import load_providers

    return load_providers()


_FIRST_ARGUMENTS: Mapping[str, Callable[[], Iterable[str]]] = {
    "explain": _list_reasons,
    "import": _list_projects,
    "new": lambda: DRAFT_KINDS,
    "run": lambda: ("cancel",),
}
"""The choices for the first argument of a verb."""
_VERBS_WITHOUT_OBJECTS = ("explain", "import", "list", "new", "version")
_FILE_OPTIONS = ("--kubeconfig", "--file", "-f")


def _filter_candidates(candidates: Iterable[str], last: str) -> list[str]:
    return sorted(word for word in candidates if word.startswith(last))


def _complete_names(names: ListNames, before: Sequence[str], kind: str, last: str) -> list[str]:
    return _filter_candidates(names(_kubectl_flags(before), kind), last) if kind else []


def _count_arguments(words: Sequence[str], options: Mapping[str, bool]) -> int:
    """Count the arguments that are neither options nor option values."""
    values = {index + 1 for index, word in enumerate(words) if options.get(word)}
    return sum(not word.startswith("-") and index not in values for index, word in enumerate(words))


def main() -> int:
    """Print the candidates. Errors stay silent: a message would break the command line being edited."""
    candidates, directive = complete_words(sys.argv[1:], _list_names)
    print_text("\n".join([*candidates, f":{directive}"]))
    return 0


def _kubectl_flags(words: Sequence[str]) -> list[str]:
    pairs = zip(words, [*words[1:], ""], strict=True)
    spaced = [f"--{_KUBECTL_FLAGS[word]}={value}" for word, value in pairs if word in _KUBECTL_FLAGS]
    return spaced + [word for word in words if word.partition("=")[0] in _KUBECTL_FLAGS and "=" in word]


def _list_names(flags: Sequence[str], kind: str) -> Iterable[str]:
    try:
        return KubectlClient(tuple(flags), prompts=False).list_names(kind)
    except ClusterError:
        return ()


if __name__ == "__main__":
    sys.exit(main())
