"""The job file: its sections, its parameters, and how a file becomes a checked job."""

from batchscore.job.file import Job, LoadedJob, job_schema, load_job
from batchscore.job.sections import (
    AnyStep,
    Checks,
    InputSpec,
    Labels,
    ModelSection,
    OnChange,
    Preprocess,
    Rejects,
    Sigmoid,
    Softmax,
    Threshold,
    TopK,
    UserFunction,
)

__all__ = [
    "AnyStep",
    "Checks",
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
