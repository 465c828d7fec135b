"""Model: observe, decide, act, report. Each module is one step of a reconciliation, or serves one."""
