"""The rollout table as a page of the documentation."""

from modelwright.core.rollout.machine import RULES

_HEAD = """# How a Model moves to another revision

Made from `operator/modelwright/core/rollout/machine.py` by `make generate`; a test holds the two against each other.

At each pass the operator takes one picture of the Model and its children, and the first row that holds applies.
A *revision* is a ModelVersion as served by one runtime with one pod shape. The *target* is the revision that the spec
asks for. Traffic *names* a revision when the Model's Service or its route sends requests to it.

| # | when | state | what is done |
|---|---|---|---|
"""

_TAIL = """
- At most one action of a pass changes where requests go, and a revision that traffic names is never removed.
- A revision begins to *serve* when traffic names it alone, the gateway was seen to follow, and its pods answer.
- When nothing has ever served, the target is named before its pods are ready, so that a taken name or a refused route
  shows at once, and callers get "unavailable" rather than "not found".
- With `spec.suspend` nothing is done in any state.
"""


def page() -> str:
    """The page in Markdown."""
    rows = [f"| {n} | {rule.name} | {rule.state} | {rule.does} |\n" for n, rule in enumerate(RULES, 1)]
    return _HEAD + "".join(rows) + _TAIL
