"""Model inputs to model outputs, at once or late."""

from batchscore.stages.infer.late import DeviceThread, infer_late
from batchscore.stages.infer.step import infer, infer_known

__all__ = ["DeviceThread", "infer", "infer_known", "infer_late"]
