"""Documentation page of the decision table of rollouts."""

from modelwright.api.v1alpha1.rollout import RolloutState
from modelwright.core.rollout.machine import TABLE
from modelwright.core.rollout.record import TERMINAL_STATES
from modelwright.core.rollout.steps import PRESET_STEPS
from modelwright.core.table import render_rows
from scripts.docgen.rollout_transitions import list_transitions
from scripts.docgen.state_diagram import render_state_diagram

_HEAD = """# How a Model moves to another revision

Made from `operator/modelwright/core/rollout/` by `make generate`; a test holds the two against each other.

In each reconciliation the operator takes one snapshot of the Model and its children, and the first row that holds
applies. A *revision* is a ModelVersion as served by one runtime with one pod shape. The *target* is the revision that
the spec selects. Traffic *names* a revision when the Model's Service or its route sends requests to it. The *candidate*
is the revision to which a ModelRollout moves. A row without a state changes only the ModelRollout's record; after it
the table is evaluated again from the top, and the change is written before any action.

The drawing has the states of a ModelRollout, with the numbers of the rows that lead from one to another. It comes from
running the table, starting with a new record, through everything that users, metrics, pods, gateway and time can cause.

"""

_TAIL = """
- At most one action of a reconciliation changes the traffic, and a revision that traffic names is never removed.
- A revision starts to *serve* when traffic names it alone, the gateway has confirmed that, its pods answer, and its
  rollout, if there is one, is being promoted.
- When nothing has ever served, the target is named before its pods are ready, so that a taken name or a refused route
  shows at once, and callers get "unavailable" rather than "not found".
- A candidate that receives callers' requests is always judged, and can always be rolled back: in Promoting, while the
  pods of the next step start, in pauses, holds and freezes, while approvals are missing, and after a restart of the
  operator. Its metrics are those of the step whose traffic was confirmed last, counted from then; before the first such
  step is confirmed, those of the present step, counted from its start. Between two steps and in Promoting only a Fail
  has an effect: the step has passed, so that Error and Inconclusive change nothing, and the deadline bounds them. A
  candidate without a ready pod is rolled back in every such state.
- Metrics judge no first revision, no revision that served before and returns without steps, and no manual rollback. A
  manual rollback that loses its pods does not end: its requests return to the former revision until its pods are ready
  again.
- After a user has promoted a candidate although a metric has failed, its metrics decide nothing more; lost pods, the
  deadline and the command abort still roll it back.
- The deadline's clock runs in Gating, Progressing, Holding and Promoting; it stops while approvals are missing and in a
  freeze.
- With `spec.suspend` the operator changes nothing in any state.

## Presets

"""


def render_rollout_page() -> str:
    """Render the page in Markdown."""
    presets = [
        f"- `{name}`: " + ", ".join(_format_step(step.weight, step.hold) for step in steps) + "\n"
        for name, steps in PRESET_STEPS.items()
    ]
    drawing = render_state_diagram(RolloutState, RolloutState.PENDING, TERMINAL_STATES, list_transitions())
    return _HEAD + drawing + "\n" + render_rows(TABLE) + _TAIL + "".join(presets)


def _format_step(weight: int | None, hold: str | None) -> str:
    return f"weight {weight} %" + (f", hold {hold}" if hold else "")
