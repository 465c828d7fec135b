"""`kubectl modelwright import`: objects of other projects as ours. Nothing of them is dropped without a note."""
