"""The parts of Beam that it calls its own: no other module imports them.

Beam may change them in any version, which `beam_version` guards.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import batchscore.system.beam_import  # noqa: F401 - comes before all of Beam

# isort: split
from apache_beam.options.pipeline_options import PipelineOptions, _BeamArgumentParser
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.portability.fn_api_runner.fn_runner import FnApiRunner
from apache_beam.runners.worker import statesampler
from apache_beam.runners.worker.sdk_worker import SdkHarness
from apache_beam.transforms import core, userstate
from apache_beam.transforms.environments import ExternalEnvironment
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

if TYPE_CHECKING:
    from apache_beam.runners.portability.flink_runner import FlinkRunner
    from apache_beam.runners.portability.portable_runner import PortableRunner

__all__ = [
    "ExternalEnvironment",
    "FnApiRunner",
    "SdkHarness",
    "beam_fn_api_pb2",
    "beam_fn_api_pb2_grpc",
    "core",
    "dataflow_description",
    "dataflow_job",
    "flink_runner",
    "job_server_id",
    "option_parser",
    "options_of",
    "portable_runner",
    "shared_unbounded_instance",
    "statesampler",
    "userstate",
]


def option_parser() -> argparse.ArgumentParser:
    """Returns a parser of all options that Beam knows, which raises instead of exiting."""
    return _parser_of(tuple(PipelineOptions.__subclasses__()))


@cache  # a run parses its flags before it plans and once more when it submits
def _parser_of(kinds: tuple[type[PipelineOptions], ...]) -> argparse.ArgumentParser:
    parser = _BeamArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for kind in kinds:
        kind._add_argparse_args(parser)
    return parser


def options_of(kinds: Collection[str]) -> dict[str, str]:
    """Returns the options of classes of Beam's options, as on a command line, with their class."""
    found = dict[str, str]()
    for kind in PipelineOptions.__subclasses__():
        if kind.__name__ in kinds:
            parser = _BeamArgumentParser(add_help=False, allow_abbrev=False)
            kind._add_argparse_args(parser)
            names = (name for action in parser._actions for name in action.option_strings)
            found |= dict.fromkeys(names, kind.__name__)
    return found


def flink_runner() -> FlinkRunner:
    """Returns a runner for Flink, whose modules the other engines need not import."""
    from apache_beam.runners.portability.flink_runner import FlinkRunner

    return FlinkRunner()


def portable_runner() -> PortableRunner:
    """Returns a runner for any job server, whose modules the other engines need not import."""
    from apache_beam.runners.portability.portable_runner import PortableRunner

    return PortableRunner()


def job_server_id(result: Any) -> str:
    """Returns a job server's own id of a pipeline that it took."""
    return str(result._job_id)


def dataflow_job(flags: Sequence[str]) -> tuple[Any, PipelineOptions]:
    """Returns a runner for Dataflow that describes jobs and sends nothing, and its options."""
    from apache_beam.options.pipeline_options import TestOptions
    from apache_beam.runners.dataflow import dataflow_runner
    from google.cloud import dataflow

    # The import of Beam left it out, for the sake of other engines.
    vars(dataflow_runner)["dataflow_api"] = dataflow
    options = PipelineOptions(list(flags))
    # As a flag, any text is true.
    options.view_as(TestOptions).dry_run = True
    return dataflow_runner.DataflowRunner(), options


def dataflow_description(job: Any, pipeline_url: str, sha256: str) -> str:
    """Returns the request of a job as JSON.

    Args:
        job: What the runner of `dataflow_job` made.
        pipeline_url: Where the pipeline is put.
        sha256: Of its bytes.
    """
    from apache_beam.options.pipeline_options import TestOptions
    from apache_beam.runners.dataflow.internal import apiclient
    from google.protobuf import json_format

    # Workers get the options, too.
    job.options.view_as(TestOptions).dry_run = False
    job.proto.environment = apiclient.Environment(
        packages=[],
        options=job.options,
        environment_version=apiclient._FNAPI_ENVIRONMENT_MAJOR_VERSION,
        proto_pipeline_staged_url=pipeline_url,
        proto_pipeline=job.proto_pipeline,
        pipeline_proto_hash=sha256,
    ).proto
    return str(json_format.MessageToJson(job.proto._pb))
