"""`python -m modelwright.agents.drift_monitor`: entry point of the drift monitor's container."""

from modelwright.agents.drift_monitor.command import run_drift_monitor

if __name__ == "__main__":
    raise SystemExit(run_drift_monitor())
