"""`python -m modelwright.observe`: entry point of the observer's container."""

from modelwright.observe.command import run_drift_monitor

if __name__ == "__main__":
    raise SystemExit(run_drift_monitor())
