"""A bare Kopf operator of ours: the floor that Modelwright's pace is compared with, whatever the host."""

from pathlib import Path

from modelwright.kube.kinds import Kind

KIND = Kind("spike.example.com", "v1", "spikes", "Spike")
CRDS = Path(__file__).parent
