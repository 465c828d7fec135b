"""The former name of modelwright.agents.drift_monitor, for `python -m` in pods rendered before version 0.2."""

import runpy

if __name__ == "__main__":
    runpy.run_module("modelwright.agents.drift_monitor", run_name="__main__", alter_sys=True)
