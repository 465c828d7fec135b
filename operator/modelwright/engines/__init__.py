"""The engines that do the stages of a TrainingRun: Jobs, and any other kind of object, behind one port."""
