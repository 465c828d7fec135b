"""`python -m tests.scale`: see run.py."""

from tests.scale.run import main

main()
