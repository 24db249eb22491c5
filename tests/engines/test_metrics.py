"""Beam's metrics as the manifest lists them."""

from __future__ import annotations

from typing import Any

from apache_beam.metrics.monitoring_infos import create_monitoring_info, int64_user_counter
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability.portable_runner import PortableMetrics

from batchscore.engines.metrics import listed_metrics


class Result:
    """What a job server answered, as Beam reads it."""

    def __init__(self, *infos: Any) -> None:
        found = beam_job_api_pb2.MetricResults(attempted=infos)
        self._response = beam_job_api_pb2.GetJobMetricsResponse(metrics=found)

    def metrics(self) -> PortableMetrics:
        """Returns the metrics."""
        return PortableMetrics(self._response)


def test_a_job_servers_names_become_the_pipelines() -> None:
    """Flink's job server names steps by ids, and adds Beam's own measurements, some of no step."""
    ours = int64_user_counter(
        "batchscore", "rows", 3, ptransform="ref_AppliedPTransform_Infer-BeamML_RunInference_17"
    )
    counted, sums = "beam:metric:element_count:v1", "beam:metrics:sum_int64:v1"
    theirs = create_monitoring_info(counted, sums, b"\1", {"PCOLLECTION": "ref_PCollection_1"})
    assert listed_metrics(Result(ours, theirs)) == [
        {"step": "Infer/BeamML_RunInference", "name": "rows", "value": 3}
    ]
