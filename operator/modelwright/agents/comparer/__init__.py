"""The comparer: asks both revisions of a rollout what callers asked, and counts how far the answers are apart."""
