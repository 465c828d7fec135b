"""`python -m tests.simulate`: see run.py."""

from tests.simulate.run import main

main()
