"""The job file: its sections, its parameters, and how a file becomes a checked job."""

from batchscore.job.file import Job, LoadedJob, job_schema, load_job
from batchscore.job.sections import (
    AnyStep,
    InputSpec,
    Labels,
    ModelSection,
    Preprocess,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
    UserFunction,
)

__all__ = [
    "AnyStep",
    "InputSpec",
    "Job",
    "Labels",
    "LoadedJob",
    "ModelSection",
    "Preprocess",
    "Sigmoid",
    "Softmax",
    "Threshold",
    "TopK",
    "UserFunction",
    "job_schema",
    "load_job",
]
