"""Programs that run in pods of their own, without any right in the cluster."""
