"""The job file: its sections, its parameters, and how a file becomes a checked job."""

from batchscore.job.column_checks import ColumnCheck, column_checks
from batchscore.job.field_types import age_seconds
from batchscore.job.file import (
    Job,
    LoadedJob,
    declared_parameters,
    job_schema,
    load_embedded,
    load_job,
)
from batchscore.job.rules import (
    Checks,
    Drift,
    EarlierRuns,
    ListedReference,
    Mute,
    Notify,
    OnChange,
    Rejects,
)
from batchscore.job.sections import Explain, InputSpec, ModelSection, Preprocess
from batchscore.job.steps.activations import Sigmoid, Softmax
from batchscore.job.steps.all_steps import AnyStep, UserFunction
from batchscore.job.steps.decisions import Labels, Threshold, TopK

__all__ = [
    "AnyStep",
    "Checks",
    "ColumnCheck",
    "Drift",
    "EarlierRuns",
    "Explain",
    "InputSpec",
    "Job",
    "Labels",
    "ListedReference",
    "LoadedJob",
    "ModelSection",
    "Mute",
    "Notify",
    "OnChange",
    "Preprocess",
    "Rejects",
    "Sigmoid",
    "Softmax",
    "Threshold",
    "TopK",
    "UserFunction",
    "age_seconds",
    "column_checks",
    "declared_parameters",
    "job_schema",
    "load_embedded",
    "load_job",
]
