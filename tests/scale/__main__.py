"""`python -m tests.scale`: see command.py."""

from tests.scale.command import main

main()
