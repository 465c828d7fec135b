"""Documentation page of the decision table of TrainingRuns."""

from modelwright.api.v1alpha1.training import RunState
from modelwright.core.retraining.run_observation import RUN_TERMINAL_STATES
from modelwright.core.retraining.run_table import RUN_TABLE
from modelwright.core.table import render_rows
from scripts.docgen.run_transitions import moves
from scripts.docgen.state_diagram import render_state_diagram

_HEAD = """# What a TrainingRun does next

Made from `operator/modelwright/core/retraining/` by `make generate`; `make verify` holds the two against each other.

At each pass the operator takes one picture of a run, and the first row that holds applies. A row without a state keeps
the state that there is, or changes what the record says; after a change the table is read again from the top, and the
record is written before anything is done.

The states, with the numbers of the rows that lead from one to another. The drawing is what came of running the table,
from a new run on, through what policy, data, objects of stages, other runs and time may do.

"""

_TAIL = """
- The object of a stage is made once. Its uid is in the record, so that one which is gone is known to have been there.
- A result that is there is taken even when its time is up. What is neither success nor failure is waited for until the
  timeout.
- The clocks of stage and run stand still while the object is suspended or queued.
"""


def render_run_page() -> str:
    """Render the page in Markdown."""
    drawing = render_state_diagram(RunState, RunState.PENDING, RUN_TERMINAL_STATES, moves())
    return _HEAD + drawing + "\n" + render_rows(RUN_TABLE) + _TAIL
