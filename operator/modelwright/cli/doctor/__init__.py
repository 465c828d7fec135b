"""`kubectl modelwright doctor`: finds what is wrong with an install, a namespace or a Model, and names the cure."""
