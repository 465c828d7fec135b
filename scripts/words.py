"""Measures how plainly the operator's code speaks: `python scripts/words.py` prints the table of names and words.

`--limits` prints the limits of tests/unit/test_words.py as they are now, one line for each package.
"""

from __future__ import annotations

import argparse
import ast
import math
import re
import statistics
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "operator" / "modelwright"

PRIVATE_WORDS: Mapping[str, re.Pattern[str]] = {
    name: re.compile(pattern, re.IGNORECASE)
    for name, pattern in {
        "told": r"(?<![a-z])told(?![a-z])",
        "anew": r"(?<![a-z])anew(?![a-z])",
        "look (a measurement)": r"(?<![a-z])looked(?![a-z])|(?<![a-z])looks?_|_looks?(?![a-z])",
        "desk": r"(?<![a-z])desk(?![a-z])",
        "lookout": r"(?<![a-z])lookout(?![a-z])",
        "whoever": r"(?<![a-z])(?:who|what)ever(?![a-z])",
        "nobody": r"(?<![a-z])(?:no|some)body(?![a-z])",
        "begin (a noun)": r"\b(?:the|a|its) begin\b",
        "by hand": r"\bby[ -]hand\b",
        "by itself": r"\bby (?:itself|themselves)\b",
        "for good": r"\bfor good\b",
        "comes to": r"\b(?:comes?|came|come) to(?: nothing)?\b",
        "on its way": r"\bon (?:its|their) way\b",
        "let go": r"\blet go\b",
    }.items()
}
"""Words that a reader has to learn, by name: each has a plain equivalent."""


@dataclass(frozen=True, slots=True)
class Table:
    """The figures of a source tree. Shares are from 0 to 1; words count per 1,000 lines."""

    lines: int
    files: int
    function_lines: tuple[int, int, int]
    """Median, 90th percentile and longest."""
    largest_file: tuple[str, int]
    documented: float
    single_word: float
    name_length: float
    shared_classes: tuple[str, ...]
    classes: int
    shared_modules: int
    modules: int
    shared_functions: float
    """Module-level functions whose name three or more modules use."""
    words: Mapping[str, float]


def read_sources(root: Path = SOURCE) -> dict[str, str]:
    """Read every Python file below `root`: path relative to it -> text."""
    return {
        path.relative_to(root).as_posix(): path.read_text()
        for path in sorted(root.rglob("*.py"))
        if "__pycache__" not in path.parts
    }


def package_of(path: str) -> str:
    """Name the package that a file is counted for; "." for the modules beside the packages."""
    return path.split("/", 1)[0] if "/" in path else "."


def count_words(text: str) -> Counter[str]:
    """Count the private words of a text, in names and in prose."""
    return Counter({name: len(pattern.findall(text)) for name, pattern in PRIVATE_WORDS.items()})


def words_per_package(sources: Mapping[str, str]) -> dict[str, float]:
    """Count private words per 1,000 lines of each package."""
    texts: dict[str, list[str]] = defaultdict(list)
    for path, text in sources.items():
        texts[package_of(path)].append(text)
    return {
        package: 1000 * sum(count_words(text).total() for text in each) / max(_count_lines(each), 1)
        for package, each in sorted(texts.items())
    }


def build_table(sources: Mapping[str, str]) -> Table:
    """Measure names, lengths and words of a source tree."""
    functions: list[ast.FunctionDef | ast.AsyncFunctionDef] = []
    classes: dict[str, set[str]] = defaultdict(set)
    module_functions: dict[str, set[str]] = defaultdict(set)
    for path, text in sources.items():
        tree = ast.parse(text)
        functions += _functions(ast.walk(tree))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                classes[node.name].add(path)
        for function in _functions(tree.body):
            module_functions[function.name].add(path)
    lengths = sorted((function.end_lineno or 0) - function.lineno + 1 for function in functions)
    names = [function.name for function in functions if not function.name.startswith("__")]
    modules = Counter(path.rpartition("/")[2] for path in sources if not path.endswith("__.py"))
    lines = _count_lines(sources.values())
    words = sum((count_words(text) for text in sources.values()), Counter())
    return Table(
        lines=lines,
        files=len(sources),
        function_lines=(round(statistics.median(lengths)), lengths[int(len(lengths) * 0.9)], lengths[-1]),
        largest_file=max(((path, text.count("\n")) for path, text in sources.items()), key=lambda each: each[1]),
        documented=sum(ast.get_docstring(function) is not None for function in functions) / len(functions),
        single_word=sum("_" not in name.strip("_") for name in names) / len(names),
        name_length=statistics.mean(map(len, names)),
        shared_classes=tuple(sorted(name for name, paths in classes.items() if len(paths) > 1)),
        classes=len(classes),
        shared_modules=sum(count for count in modules.values() if count > 1),
        modules=modules.total(),
        shared_functions=sum(len(paths) for paths in module_functions.values() if len(paths) >= 3)
        / sum(len(paths) for paths in module_functions.values()),
        words={name: 1000 * words[name] / lines for name in PRIVATE_WORDS},
    )


def _functions(nodes: Iterable[ast.AST]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def _count_lines(texts: Iterable[str]) -> int:
    return sum(text.count("\n") for text in texts)


def format_table(table: Table) -> str:
    """Render the figures, one line each."""
    rows = [
        ("lines / files", f"{table.lines} / {table.files}"),
        ("function length: median / p90 / max", " / ".join(map(str, table.function_lines))),
        ("largest file", f"{table.largest_file[1]} ({table.largest_file[0]})"),
        ("functions with a docstring", f"{table.documented:.0%}"),
        ("function names of a single word", f"{table.single_word:.0%}"),
        ("mean length of a function name", f"{table.name_length:.1f}"),
        ("class names in more than one module", f"{len(table.shared_classes)} of {table.classes}"),
        ("module file names used more than once", f"{table.shared_modules} of {table.modules}"),
        ("module-level functions whose name 3+ modules use", f"{table.shared_functions:.0%}"),
        *((f"`{name}` per 1,000 lines", f"{rate:.2f}") for name, rate in table.words.items()),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {value}" for name, value in rows]
    if table.shared_classes:
        lines.append(f"shared class names: {', '.join(table.shared_classes)}")
    return "\n".join(lines)


def format_limits(rates: Mapping[str, float]) -> str:
    """Render the limits of the test: each rate, rounded up to a tenth."""
    return "\n".join(f'    "{package}": {math.ceil(rate * 10) / 10},' for package, rate in rates.items())


def main(arguments: Sequence[str]) -> int:
    """Print the table, or the limits."""
    parser = argparse.ArgumentParser(prog="python scripts/words.py", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--limits", action="store_true", help="print the limits of the test instead")
    parser.add_argument("root", nargs="?", type=Path, default=SOURCE, help="source tree (default: the operator)")
    options = parser.parse_args(arguments)
    sources = read_sources(options.root)
    print(format_limits(words_per_package(sources)) if options.limits else format_table(build_table(sources)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
