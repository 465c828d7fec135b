"""Documentation page of the decision table of TrainingRuns."""

from modelwright.api.v1alpha1.training import RunState
from modelwright.core.retraining.run_observation import RUN_TERMINAL_STATES
from modelwright.core.retraining.run_table import RUN_TABLE
from modelwright.core.table import render_rows
from scripts.docgen.run_transitions import list_transitions
from scripts.docgen.state_diagram import render_state_diagram

_HEAD = """# What a TrainingRun does next

Made from `operator/modelwright/core/retraining/` by `make generate`; `make verify` holds the two against each other.

In each reconciliation the operator takes one snapshot of a run, and the first row that holds applies. A row without a
state keeps the present state, or changes the record; after a change the table is evaluated again from the top, and the
record is written before any action.

The drawing has the states, with the numbers of the rows that lead from one to another. It comes from running the table,
starting with a new run, through everything that policy, data, objects of stages, other runs and time can cause.

"""

_TAIL = """
- The object of a stage is created once. Its uid is in the record, so that a lost object is never created again.
- A result counts even after the timeout. A state that is neither success nor failure is waited for until the timeout.
- The clocks of stage and run stop while the object is suspended or queued.
"""


def render_run_page() -> str:
    """Render the page in Markdown."""
    drawing = render_state_diagram(RunState, RunState.PENDING, RUN_TERMINAL_STATES, list_transitions())
    return _HEAD + drawing + "\n" + render_rows(RUN_TABLE) + _TAIL
