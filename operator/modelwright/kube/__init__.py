"""The Kubernetes layer: client, store, work queue, sweep, events and leader election."""
