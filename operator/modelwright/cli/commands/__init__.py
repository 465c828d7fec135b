"""What each verb of `kubectl modelwright` does. A handler takes the options as they were read and the cluster, and
returns the exit code."""
