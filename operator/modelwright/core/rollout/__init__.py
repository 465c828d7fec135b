"""How a Model moves from the revision that serves to the one that is wanted."""
