"""What a status says: pure functions from a decision to conditions and fields."""
