"""The chart function of every figure of the registry, by the figure's name."""

from __future__ import annotations

from mmn.lazily import load
from mmn.studies.registry import FIGURES

CHARTS = {name: load(figure.chart) for name, figure in FIGURES.items()}
