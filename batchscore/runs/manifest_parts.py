"""The parts of a manifest: rows, model, checks, decisions, and the items of its lists."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from batchscore.storage.typed import Count, Each, Maybe, Moment


@dataclass(frozen=True)
class RowCounts:
    """Where every row of the input went.

    Args:
        input: Rows of all shards; always the sum of filtered, scored, rejected and quarantined.
        filtered: Rows that the job's filter left out.
        scored: Rows with a score.
        rejected: Rows that could not be scored, each with its reason.
        quarantined: Rows of shards that could not be read and were left out.
        reused: Rows, among the others, of units that an earlier run scored.
    """

    input: Count
    filtered: Count
    scored: Count
    rejected: Count
    quarantined: Count
    reused: Count


@dataclass(frozen=True)
class ModelFacts:
    """The model that scored the rows.

    Args:
        name: The name in its card.
        version: The version in its card.
        identity: The hash of all that decides what it computes.
        sha256: The SHA-256 of each of its files.
    """

    name: str = ""
    version: str = ""
    identity: str = ""
    sha256: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JudgedCheck:
    """A check that was judged before publishing.

    Args:
        name: Of the check.
        passed: Whether the run passed it.
        detail: Its figures, as a sentence.
        status: What a run becomes that does not pass: `held`, or `failed` if nobody may release it.
    """

    name: str
    passed: bool
    detail: str
    status: str = "failed"


@dataclass(frozen=True)
class Decision:
    """What a person decided about a run.

    Args:
        at: When, in UTC.
        by: Who, as `user@host`.
        reason: Why, in the person's words.
        run: The run that put the decision into effect, if another one did.
    """

    at: Moment
    by: str
    reason: str = ""
    run: str = ""


@dataclass(frozen=True)
class Stopped:
    """What stopped a run: Ctrl-C, SIGTERM, or `cancel`.

    Args:
        at: When the run had stopped, in UTC.
        by: Who stopped it, as `user@host`.
        exit_code: Of the command that ran the job: 130 after Ctrl-C, else 143.
    """

    at: Moment
    by: str
    exit_code: Count


@dataclass(frozen=True)
class ResourceUsage:
    """What a run used. Workers note theirs at the end of each of their bundles.

    Args:
        cpu_seconds: CPU time of all processes of the run, from the command's start. Of a run on a
            cluster, that of its workers.
        peak_memory_bytes: Memory that the largest process held at its peak.
        total_memory_bytes: The peaks of all processes, added up. What they share counts for each.
        processes: How many worker processes noted what they used; 0 if the launcher scored alone.
        read_bytes: Sizes of the shards that the run's units read. Of a shard that is read in part,
            the share of its rows.
        written_bytes: Sizes of the scored files, rejected rows, lineage and key hashes that the
            run's units wrote.
        rejected_share: Rejected rows among those that were to be scored, also of units that were
            scored before.
        gpu_memory_bytes: Memory of a GPU in use at most, whoever used it.
        gpu_busy_share: Share of the time in which the GPUs were at work, while they were looked at.
    """

    cpu_seconds: Maybe[float] = None
    peak_memory_bytes: Maybe[Count] = None
    total_memory_bytes: Maybe[Count] = None
    processes: Maybe[Count] = None
    read_bytes: Maybe[Count] = None
    written_bytes: Maybe[Count] = None
    rejected_share: Maybe[float] = None
    gpu_memory_bytes: Maybe[Count] = None
    gpu_busy_share: Maybe[float] = None


@dataclass(frozen=True)
class Slowness:
    """That a run took at least twice as long as runs like it.

    Args:
        median_seconds: The median of their seconds.
        runs: How many there are: the last published ones, at most ten.
        times: How many times that the run took.
    """

    median_seconds: float
    runs: Count
    times: float


@dataclass(frozen=True)
class RejectedRows:
    """The rows that were rejected.

    Args:
        reasons: Rows by stage, error and message; the 50 commonest, and `other reasons`.
        files: Parquet files that hold them, relative to the output; not in a version 2 manifest
            whose `composed` names `rejects`.
    """

    reasons: dict[str, Any] = field(default_factory=dict)
    files: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class FileEntry:
    """A scored file.

    Args:
        path: Relative to the output, below `data/`.
        partition: Its folder below `data/`, such as `day=1`, or empty.
        rows: Its rows.
        bytes: Its size.
        sha256: The SHA-256 of its bytes.
        unit: The unit whose rows it holds.
    """

    path: str
    partition: str
    rows: Count
    bytes: Count
    sha256: str
    unit: str


@dataclass(frozen=True)
class ShardEntry:
    """A file of the input.

    Args:
        path: Its address; values of a query are hidden.
        size: Its bytes.
        mark: Its modification time or ETag.
        rows: Its rows, by its footer.
        keys: Its hive keys, each as name and value.
    """

    path: str
    size: Count
    mark: str
    rows: Count
    keys: list[Any] = field(default_factory=list)


@dataclass(frozen=True)
class FileDigest:
    """What a file holds.

    Args:
        bytes: Its size.
        sha256: The SHA-256 of its bytes.
    """

    bytes: Count
    sha256: str


@dataclass(frozen=True)
class UnitEntry:
    """A unit of work: what it read, and what became of its rows. Empty values are left out.

    Args:
        unit: Its name.
        attempt: The attempt that counts.
        run: The run that scored it.
        pieces: What it read, each as [index into `shards`, row groups, first rows, rows].
        read: Rows that were read.
        filtered: Of these, rows that the job's filter left out.
        scored: Of these, rows with a score.
        rejected: Of these, rows that were rejected.
        reject_reasons: Rejected rows by stage, error and message.
        rejects_file: The file of its rejected rows.
        bad_shards: Shards of it that were left out, with rows and reason.
        rows_file: The file that says which row of the unit each written row is.
        keys_file: The sorted hashes of its unique key.
        keys_columns: The columns of that key.
        score_ranges: The smallest and the largest value of each score.
        sidecars: What the three files above hold.
        tallies: What the checks of columns counted.
        kernels: The kernels that scored it, if not the default ones.
        device: The device that scored it, if not the CPU; earlier versions left it out.
    """

    unit: str
    attempt: str
    run: str
    pieces: list[Any]
    read: Count
    filtered: Count
    scored: Count
    rejected: Count
    reject_reasons: dict[str, Count] = field(default_factory=dict)
    rejects_file: str | None = None
    bad_shards: list[Any] = field(default_factory=list)
    rows_file: str | None = None
    keys_file: str | None = None
    keys_columns: list[str] = field(default_factory=list)
    score_ranges: dict[str, Any] = field(default_factory=dict)
    sidecars: dict[str, FileDigest] = field(default_factory=dict)
    tallies: dict[str, Any] = field(default_factory=dict)
    kernels: str | None = None
    device: str | None = None


@dataclass(frozen=True)
class BadShardEntry:
    """A shard that could not be read and was left out.

    Args:
        path: Its address.
        reason: Why it could not be read.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class SegmentLists:
    """Lists of what a run added, in a manifest of version 2.

    Args:
        units: As at the top level.
        files: As at the top level.
        shards: As at the top level.
        inputs: Shards of the input that no unit reads.
        bad_shards: As at the top level.
    """

    units: Annotated[list[Any], Each(UnitEntry)] = field(default_factory=list)
    files: Annotated[list[Any], Each(FileEntry)] = field(default_factory=list)
    shards: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    inputs: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    bad_shards: Annotated[list[Any], Each(BadShardEntry)] = field(default_factory=list)
