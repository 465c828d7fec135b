"""Rows of the rollout table, a module per phase. The order of the rows is the decision: see `machine.TABLE`."""
