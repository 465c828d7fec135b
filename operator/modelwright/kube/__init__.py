"""The Kubernetes layer: client, store, work queue, resync, events and leader election."""
