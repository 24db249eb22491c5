"""Model inputs to model outputs, at once or late."""

from batchscore.stages.infer.late import DeviceThread, infer_late
from batchscore.stages.infer.step import infer

__all__ = ["DeviceThread", "infer", "infer_late"]
