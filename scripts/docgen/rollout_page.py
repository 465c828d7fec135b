"""Documentation page of the decision table of rollouts."""

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.rollout.machine import TABLE
from modelwright.core.rollout.record import TERMINAL_STATES
from modelwright.core.rollout.steps import PRESET_STEPS
from modelwright.core.table import render_rows
from scripts.docgen.rollout_transitions import moves
from scripts.docgen.state_diagram import render_state_diagram

_HEAD = """# How a Model moves to another revision

Made from `operator/modelwright/core/rollout/` by `make generate`; a test holds the two against each other.

At each pass the operator takes one picture of the Model and its children, and the first row that holds applies.
A *revision* is a ModelVersion as served by one runtime with one pod shape. The *target* is the revision that the spec
asks for. Traffic *names* a revision when the Model's Service or its route sends requests to it. The *candidate* is what
a ModelRollout moves to. A row without a state changes only what the ModelRollout remembers; after it the table is read
again from the top, and the change is written down before anything is done.

The states of a ModelRollout, with the numbers of the rows that lead from one to another. The drawing is what came of
running the table, from a new record on, through what people, metrics, pods, gateway and time may do.

"""

_TAIL = """
- At most one action of a pass changes where requests go, and a revision that traffic names is never removed.
- A revision begins to *serve* when traffic names it alone, the gateway was seen to follow, its pods answer, and its
  rollout, if there is one, is being promoted.
- When nothing has ever served, the target is named before its pods are ready, so that a taken name or a refused route
  shows at once, and callers get "unavailable" rather than "not found".
- A candidate that callers' requests reach is always judged, and can always be rolled back: in Promoting, while the pods
  of the next step start, in pauses, holds and freezes, while people are waited for, and after a restart of the
  operator. Its metrics are those of the step whose traffic was confirmed last, counted from then; before the first such
  step is confirmed, its own, counted from its begin. Between two steps and in Promoting only a Fail is acted on: the
  step has passed, so that Error and Inconclusive change nothing, and the deadline bounds them. A candidate without a
  ready pod is rolled back in every such state.
- Metrics judge no first revision, no revision that served before and goes back without steps, and no rollback by hand.
  A rollback by hand whose pods are gone is not ended: its requests go back until its pods are ready again.
- Of a candidate that a person promotes although a metric has failed, metrics decide nothing more; lost pods, the
  deadline and the command abort still turn it back.
- The deadline's clock runs in Gating, Progressing, Holding and Promoting; not while people or a freeze are waited for.
- With `spec.suspend` nothing is done in any state.

## Presets

"""


def render_rollout_page() -> str:
    """Render the page in Markdown."""
    presets = [
        f"- `{name}`: " + ", ".join(_format_step(step.weight, step.hold) for step in steps) + "\n"
        for name, steps in PRESET_STEPS.items()
    ]
    drawing = render_state_diagram(RolloutState, RolloutState.PENDING, TERMINAL_STATES, moves())
    return _HEAD + drawing + "\n" + render_rows(TABLE) + _TAIL + "".join(presets)


def _format_step(weight: int | None, hold: str | None) -> str:
    return f"weight {weight} %" + (f", hold {hold}" if hold else "")
