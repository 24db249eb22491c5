"""Model inputs to model outputs, in calls of one fixed row count so that bits never change."""

from batchscore.stages.infer.forward import Forward
from batchscore.stages.infer.late import DeviceThread, infer_late
from batchscore.stages.infer.micro_batch import MicroBatches
from batchscore.stages.infer.outputs import OutputSpec
from batchscore.stages.infer.staging import Staging
from batchscore.stages.infer.step import infer

__all__ = [
    "DeviceThread",
    "Forward",
    "MicroBatches",
    "OutputSpec",
    "Staging",
    "infer",
    "infer_late",
]
