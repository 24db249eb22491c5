"""What tests of engines share: Beam's own job server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_beam.runners.portability.local_job_service import LocalJobServicer


@pytest.fixture
def job_server(tmp_path: Path) -> Iterator[str]:
    """Beam's own job server, which takes what Flink's takes, and runs it in processes."""
    server = LocalJobServicer(staging_dir=str(tmp_path / "staging"))
    port = server.start_grpc_server()
    yield f"localhost:{port}"
    server.stop()
