"""How often the statistics of rollouts err, and how many requests they take, by simulation."""
