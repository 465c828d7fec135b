"""`kubectl modelwright doctor`: diagnoses an installation, a namespace or a Model, and names the cure of each fault."""
