"""Open-loop load: requests at a fixed rate, answers counted per version, lost ones kept with their cause."""

from devcluster.load.background import BackgroundLoad
from devcluster.load.client import Answer, Load, Lost, Report, Target

__all__ = ["Answer", "BackgroundLoad", "Load", "Lost", "Report", "Target"]
