"""TrainingRun: observe, decide, act, report."""
