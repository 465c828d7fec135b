"""What the operator tells about itself: metrics, JSON logs, and the clock everything else is timed by."""
