"""The comparer: repeats mirrored requests against both revisions of a rollout and measures how far the answers
differ."""
