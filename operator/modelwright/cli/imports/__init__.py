"""`kubectl modelwright import`: converts objects of other projects. No field is dropped without a note."""
