"""YAML documents that know the line of each field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

FieldPath = tuple[str | int, ...]

_MAX_VALUES = 1_000_000
"""The most values of a document with its aliases expanded, as in JSON. The largest object that etcd stores has
fewer."""
_PATH_STEP = re.compile(r"\.?([A-Za-z_$][\w$-]*)|\[(\d+)\]|\[\"?([^\]\"]+)\"?\]")


class InvalidYaml(ValueError):
    """A text is not valid YAML. `line` counts from 1; 0 when unknown."""

    def __init__(self, why: str, line: int) -> None:
        self.line = line
        super().__init__(why)


@dataclass(frozen=True)
class YamlDocument:
    """One object, with its place in the file."""

    content: Any
    node: yaml.Node | None = None

    def line_of(self, path: FieldPath = ()) -> int:
        """Return the line, from 1, of the field at `path` or of the nearest enclosing field; 0 when unknown."""
        if self.node is None:
            return 0
        node, mark = self.node, self.node.start_mark
        for step in path:
            child = _find_child(node, step)
            if child is None:
                break
            key, node = child
            mark = key.start_mark
        return mark.line + 1

    def repeated_fields(self) -> Iterator[tuple[FieldPath, int]]:
        """Yield fields that occur twice in one mapping, with the line of the second."""
        yield from _find_repeated(self.node, (), set())

    def list_items(self) -> Iterator[YamlDocument]:
        """Yield the objects of a `List`, or the document itself."""
        content = self.content
        if not isinstance(content, dict) or not str(content.get("kind", "")).endswith("List"):
            yield self
            return
        listed = content.get("items")
        if not isinstance(listed, list):
            yield self
            return
        item_nodes = _find_child(self.node, "items")
        for index, item in enumerate(listed):
            place = _find_child(item_nodes[1], index) if item_nodes is not None else None
            yield YamlDocument(item, place[1] if place is not None else None)


def read_documents(text: str) -> Iterator[YamlDocument]:
    """Yield the documents of a text. Raises InvalidYaml at the first unreadable one."""
    loader = yaml.SafeLoader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None and _expanded_size(node) > _MAX_VALUES:
                line = node.start_mark.line + 1
                raise InvalidYaml(f"its aliases stand for more than {_MAX_VALUES} values in all", line)
            yield YamlDocument(loader.construct_document(node), node)
    except InvalidYaml:
        raise
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise InvalidYaml(problem, 0 if mark is None else mark.line + 1) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InvalidYaml(str(error).partition("\n")[0], 0) from error
    finally:
        loader.dispose()


def _expanded_size(node: yaml.Node) -> int:
    """Count the values of a node with its aliases expanded. A node that contains itself counts once there."""
    counted: dict[int, int] = {}
    todo = [(node, False)]
    while todo:
        each, is_counted = todo.pop()
        if is_counted:
            counted[id(each)] = 1 + sum(counted.get(id(inner), 1) for inner in _child_nodes(each))
        elif id(each) not in counted:
            counted[id(each)] = 1
            todo.append((each, True))
            todo += [(inner, False) for inner in _child_nodes(each)]
    return counted[id(node)]


def _child_nodes(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [inner for pair in node.value for inner in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def parse_path(text: str) -> FieldPath:
    """Parse a path such as `spec.steps[0].weight`; anything after an unreadable part is ignored."""
    steps: list[str | int] = []
    position = 0
    while (step := _PATH_STEP.match(text, position)) is not None:
        if step[1] is not None and steps and not step[0].startswith("."):
            break
        steps.append(int(step[2]) if step[2] is not None else step[1] or step[3])
        position = step.end()
    return tuple(steps)


def _find_child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Node] | None:
    """Find the key and value nodes of a field, or an item's own node twice."""
    if isinstance(node, yaml.MappingNode):
        # The last of two equal keys wins, as in YAML's own reading.
        for key, value in reversed(node.value):
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step]
    return None


def _find_repeated(node: yaml.Node | None, path: FieldPath, visited: set[int]) -> Iterator[tuple[FieldPath, int]]:
    if node is None or id(node) in visited:
        return
    visited.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            yield from _find_repeated(item, (*path, index), visited)
    if isinstance(node, yaml.MappingNode):
        names: set[str] = set()
        for key, value in node.value:
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            if name and name != "<<" and name in names:
                yield (*path, name), key.start_mark.line + 1
            names.add(name)
            yield from _find_repeated(value, (*path, name), visited)
