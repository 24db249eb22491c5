"""Writes what a run came to as a file for Prometheus's node exporter."""

from __future__ import annotations

import errno
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from batchscore.commands.metric_names import METRICS, Document, RunMetric
from batchscore.errors import InvalidError, OutputError
from batchscore.messages.wording import reason, remedy_of

_OWN = ("job", "slice")
_PUBLISHED = ("published", "empty", "unchanged")
_MOST_BYTES = 1 << 20
# A metric's name with its labels, sorted, and the value that the file has.
_Kept = Mapping[tuple[str, tuple[tuple[str, str], ...]], float]


@dataclass(frozen=True)
class Textfile:
    """A file for the textfile collector of the node exporter.

    Args:
        path: Its path on this machine.
    """

    path: str

    def write(self, job: str, slice_: str, document: Document) -> str | None:
        """Replaces the file in one step; returns what went wrong, or None.

        Values of earlier runs that this run does not set stay as the file has them.

        Args:
            job: The job's name.
            slice_: The slice of the run.
            document: What `run --json` prints.
        """
        from prometheus_client import CollectorRegistry, write_to_textfile

        registry = CollectorRegistry()
        try:
            self._require_file()
            registry.register(_Collected(job, slice_, document, self._kept()))
            write_to_textfile(self.path, registry)
        except OSError as error:
            remedy = remedy_of(error, "name a file in a folder that exists and may be written")
            return self._unwritten(error, f"; {remedy}")
        except Exception as error:  # a run that has ended fails of no library
            return self._unwritten(error, "")
        return None

    def _require_file(self) -> None:
        """Raises OSError for a pipe, which would be waited for, and what else is no file."""
        if os.path.exists(self.path) and not os.path.isfile(self.path):
            raise OSError(errno.EEXIST, "it exists and is no file")

    def _unwritten(self, error: Exception, remedy: str) -> str:
        # The library names a file of its own in the text of an error.
        why = getattr(error, "strerror", None) or reason(error)
        return (
            f"metrics {self.path}: could not be written ({why}){remedy}. The run's outcome does "
            "not change"
        )

    def _kept(self) -> _Kept:
        """Returns the values that the file has; none where it is not there, or not ours."""
        from prometheus_client.parser import text_string_to_metric_families

        try:
            with open(self.path, encoding="utf-8") as file:
                families = [*text_string_to_metric_families(file.read(_MOST_BYTES))]
        except (OSError, ValueError, KeyError, IndexError, AttributeError):
            return {}
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): float(sample.value)
            for family in families
            for sample in family.samples
        }


def textfile(path: str | None) -> Textfile | None:
    """Returns the file of a path, before any work; None without a path.

    Raises:
        OutputError: It is not a path of this machine, or does not end in .prom.
        InvalidError: The library that writes it is not installed.
    """
    if path is None:
        return None
    if "://" in path or not path.endswith(".prom"):
        raise OutputError(
            f"--metrics {path}: expected a path on this machine that ends in .prom, which the node "
            "exporter reads"
        )
    if importlib.util.find_spec("prometheus_client") is None:
        raise InvalidError(
            "--metrics: needs the package prometheus-client; install it: "
            "pip install 'batchscore[prometheus]'"
        )
    return Textfile(os.path.abspath(path))


@dataclass(frozen=True, eq=False)
class _Collected:
    """The metrics of a run, as the library asks for them."""

    job: str
    slice: str
    document: Document
    kept: _Kept

    def collect(self) -> Iterator[Any]:
        """Yields each metric that has a value."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in METRICS:
            kind = CounterMetricFamily if metric.counts else GaugeMetricFamily
            family = kind(metric.name, metric.meaning, labels=self._labels(metric))
            for labels, value in self._values(metric):
                family.add_metric(labels, value)
            if family.samples:
                yield family

    def _labels(self, metric: RunMetric) -> tuple[str, ...]:
        own = ("job",) if metric.counts else _OWN
        return (*own, *metric.labels)

    def _values(self, metric: RunMetric) -> Iterator[tuple[list[str], float]]:
        names = self._labels(metric)
        own = [self.job] if metric.counts else [self.job, self.slice]
        made = {(*own, *labels): value for labels, value in self._made(metric)}
        if metric.counts or not made:
            for labels, value in self._earlier(metric, names):
                made[labels] = made.get(labels, 0.0) + value
        for labels, value in made.items():
            yield [*labels], value

    def _made(self, metric: RunMetric) -> Iterator[tuple[tuple[str, ...], float]]:
        status = self.document.get("status")
        sets = {
            "always": True,
            "well": status in _PUBLISHED,
            "published": status in _PUBLISHED,
        }
        if sets[metric.kept]:
            for labels, value in metric.values(self.document):
                yield tuple(labels), value

    def _earlier(
        self, metric: RunMetric, names: tuple[str, ...]
    ) -> Iterator[tuple[tuple[str, ...], float]]:
        """Yields the values that earlier runs of the job left, of what is kept or counted."""
        if metric.kept == "always" and not metric.counts:
            return
        for (name, labels), value in self.kept.items():
            found = dict(labels)
            if name == metric.exposed and found.get("job") == self.job and {*found} == {*names}:
                yield tuple(found[each] for each in names), value
