"""Drift statistics: a Model's live requests and predictions against its version's reference sample."""
