"""`python -m modelwright.agents.prober`: entry point of the infra gate's container."""

from modelwright.agents.prober.command import run_prober

if __name__ == "__main__":
    raise SystemExit(run_prober())
