"""Settings, wiring and the main loop of the operator process."""
