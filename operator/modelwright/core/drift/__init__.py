"""Statistics of what a Model is asked and answers, beside what its version was made with."""
