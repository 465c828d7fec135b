"""YAML text as documents that know the line of each field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

Path = tuple[str | int, ...]

_MOST_VALUES = 1_000_000
"""Values of a document once each alias is written out, as JSON has it. The largest object that etcd keeps has fewer."""
_STEP = re.compile(r"\.?([A-Za-z_$][\w$-]*)|\[(\d+)\]|\[\"?([^\]\"]+)\"?\]")


class NotYaml(ValueError):
    """A text that can't be read as YAML. `line` counts from 1; 0 when it is not known."""

    def __init__(self, why: str, line: int) -> None:
        self.line = line
        super().__init__(why)


@dataclass(frozen=True)
class Document:
    """One object, with its place in the file."""

    content: Any
    node: yaml.Node | None = None

    def line(self, path: Path = ()) -> int:
        """The line, from 1, of the field at `path`, or of the nearest field around it; 0 without a place."""
        if self.node is None:
            return 0
        node, mark = self.node, self.node.start_mark
        for step in path:
            found = _child(node, step)
            if found is None:
                break
            key, node = found
            mark = key.start_mark
        return mark.line + 1

    def repeated(self) -> Iterator[tuple[Path, int]]:
        """Fields that stand twice in one mapping, with the line of the second."""
        yield from _repeated(self.node, (), set())

    def items(self) -> Iterator[Document]:
        """The objects of a `List`, or the document itself."""
        content = self.content
        if not isinstance(content, dict) or not str(content.get("kind", "")).endswith("List"):
            yield self
            return
        listed = content.get("items")
        if not isinstance(listed, list):
            yield self
            return
        found = _child(self.node, "items")
        for index, item in enumerate(listed):
            place = _child(found[1], index) if found is not None else None
            yield Document(item, place[1] if place is not None else None)


def documents(text: str) -> Iterator[Document]:
    """The documents of a text, one after the other. Raises NotYaml at the first that can't be read."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and _written_out(node) > _MOST_VALUES:
                line = node.start_mark.line + 1
                raise NotYaml(f"its aliases stand for more than {_MOST_VALUES} values in all", line)
            yield Document(loader.construct_document(node), node)
    except NotYaml:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise NotYaml(problem, 0 if mark is None else mark.line + 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise NotYaml(str(error).partition("\n")[0], 0) from error
    finally:
        loader.dispose()


def _written_out(node: yaml.Node) -> int:
    """How many values a node has once each alias is written out. One that holds itself counts once there."""
    counted: dict[int, int] = {}
    todo = [(node, False)]
    while todo:
        each, is_counted = todo.pop()
        if is_counted:
            counted[id(each)] = 1 + sum(counted.get(id(inner), 1) for inner in _inner(each))
        elif id(each) not in counted:
            counted[id(each)] = 1
            todo.append((each, True))
            todo += [(inner, False) for inner in _inner(each)]
    return counted[id(node)]


def _inner(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_path(text: str) -> Path:
    """The steps of a path such as `spec.steps[0].weight`, as far as it can be read; what follows it is passed over."""
    steps: list[str | int] = []
    at = 0
    while (found := _STEP.match(text, at)) is not None:
        if found[1] is not None and steps and not found[0].startswith("."):
            break
        steps.append(int(found[2]) if found[2] is not None else found[1] or found[3])
        at = found.end()
    return tuple(steps)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """The nodes of a field's key and value; of an item of a list, its own twice."""
    if isinstance(node, yaml.MappingNode):
        # The last counts, as in what is read.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _repeated(node: yaml.Node | None, path: Path, seen: set[int]) -> Iterator[tuple[Path, int]]:
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _repeated(item, (*path, index), seen)
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name and name != "<<" and name in names:
                yield (*path, name), key.start_mark.line + 1
            names.add(name)
            yield from _repeated(value, (*path, name), seen)
