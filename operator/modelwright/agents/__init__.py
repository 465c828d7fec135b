"""Programs that run in pods of their own, without any right in the cluster.

Each program is a package. Beside them are the modules that they share: `program` (signals, exit codes), `environment`
(settings), `gate_report` (the result of a gate), `mirror` (the server for mirrored requests) and `tensors` (the
inference protocol). The fetcher uses none of these: its image contains nothing else of the project but two small
modules.
"""
