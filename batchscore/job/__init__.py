"""The job file: its sections, its parameters, and how a file becomes a checked job."""

from batchscore.job.file import Job, LoadedJob, job_schema, load_job
from batchscore.job.rules import Checks, Drift, EarlierRuns, OnChange, Rejects
from batchscore.job.sections import InputSpec, ModelSection, Preprocess
from batchscore.job.steps import (
    AnyStep,
    Labels,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
    UserFunction,
)

__all__ = [
    "AnyStep",
    "Checks",
    "Drift",
    "EarlierRuns",
    "InputSpec",
    "Job",
    "Labels",
    "LoadedJob",
    "ModelSection",
    "OnChange",
    "Preprocess",
    "Rejects",
    "Sigmoid",
    "Softmax",
    "Threshold",
    "TopK",
    "UserFunction",
    "job_schema",
    "load_job",
]
