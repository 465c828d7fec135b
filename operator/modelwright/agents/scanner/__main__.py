"""`python -m modelwright.agents.scanner`: entry point of the scan gate's container."""

from modelwright.agents.scanner.command import run_scanner

if __name__ == "__main__":
    raise SystemExit(run_scanner())
