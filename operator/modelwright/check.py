"""`python -m modelwright.check`: the former name of modelwright.agents.prober, for pods older than 0.2."""

import runpy

if __name__ == "__main__":
    runpy.run_module("modelwright.agents.prober", run_name="__main__", alter_sys=True)
