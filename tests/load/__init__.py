"""Open-loop load: requests at a fixed rate, answers counted per version, lost ones kept with their cause."""

from tests.load.background import BackgroundLoad
from tests.load.client import Load, Lost, Report, Target

__all__ = ["BackgroundLoad", "Load", "Lost", "Report", "Target"]
