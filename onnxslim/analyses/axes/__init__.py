"""The dimension analysis: what every axis of every tensor carries, and what can be removed."""

from onnxslim.analyses.axes.groups import Axes, AxisMap, Group, Stuck, axis_map
from onnxslim.analyses.axes.site import Layer, Sink

__all__ = ["Axes", "AxisMap", "Group", "Layer", "Sink", "Stuck", "axis_map"]
