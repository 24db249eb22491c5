"""The manifest as a typed document: its keys, its versions, one builder and one validator."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Annotated, Any

from batchscore.messages.wording import one_line
from batchscore.storage.typed import Count, Each, Moment, decode, json_schema, require_version

VERSION = "batchscore_manifest"
WHOLE, SEGMENTED = 1, 2
"""What the version says: the lists are whole, or partly in segments."""

_PAIR = {"type": "array", "prefixItems": [{"type": "string"}] * 2, "minItems": 2, "maxItems": 2}


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

    input: Count = 0
    filtered: Count = 0
    scored: Count = 0
    rejected: Count = 0
    quarantined: Count = 0
    reused: Count = 0


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

    at: Moment | None = None
    by: str = ""
    reason: str = ""
    run: str = ""


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


@dataclass(frozen=True)
class Manifest:
    """What one run did: `_batchscore/runs/RUN/manifest.json`, and what `--json` prints.

    Args:
        batchscore_manifest: The version of the manifest. 1: its lists are whole. 2: lists of what
            it keeps of its base lie in segments. `--json` always prints version 1.
        run: The run's name.
        status: `published`, `empty`, `held`, `failed`, `interrupted`, `discarded` or `revoked`;
            `run --json` prints `unchanged` where nothing was to do.
        started: When the command started.
        finished: When it ended.
        rows: Where every row went.
        job: The job's name.
        slice: The job's name with its parameters.
        params: The parameters, as text.
        engine: The engine that ran the job.
        device: The device that computed scores, and the one that the job asked for.
        workers: Worker processes.
        cores: Cores of the machine that the run could use.
        batch_rows: Rows of a block at most.
        tile_rows: Rows of a network call.
        inference: How the network was called, why, and the largest difference that was found.
        actor: Who started the run, as `user@host`.
        job_sha256: The SHA-256 of the job file.
        fingerprint: The hash of the score facts and of the whole input.
        score: The hash that names how rows were scored; ledger folders have it.
        score_facts: What decides scores, fact by fact.
        model: The model that scored the rows.
        packages: Versions of packages.
        changed: Why rows were scored again.
        rescored: Shards that were scored again.
        seconds: Seconds from start to end.
        phases: Seconds by phase; they add up to `seconds`.
        start_up_seconds: Seconds of each step before scoring; they add up to the phases start-up,
            planning and loading.
        base: The run that was published before, or null.
        columns: Name and type of each published column.
        files: The scored files that are published by it.
        replaced: Files that it takes the place of.
        rejects: The rejected rows.
        bad_shards: Shards that could not be read and were left out.
        damaged: Units that were scored again since their files were damaged, and what was wrong.
        checks: The checks, in the order in which they were judged.
        column_checks: What each check of a column counted, with examples.
        drift: How the profile differs from its references.
        profile: A summary of the profile, by column.
        profile_sha256: The SHA-256 of `profile.parquet`.
        profile_files: What each profile file holds, by name.
        stage_seconds: Busy seconds by stage.
        limited_by: What limited the run, or null.
        timings: Where the time of this run's units went, or null if it scored none.
        reused_units: Units of which an earlier run scored the rows.
        beam_metrics: Counters and distributions of Beam.
        units: All units that are published by it.
        shards: The shards that units read; units refer to them by index.
        inputs: All shards of the input.
        error: Why the run failed or was stopped.
        released: Who released a held run.
        discarded: Who discarded a held run.
        revoked: Who took the run back.
        restored: Who took that back.
        rollback: Who wanted the rollback that this run is.
        undoes: The run that this rollback takes back.
        published_at: When the rows were published, in what `run --json` prints for `unchanged`.
        composed: Which lists lie in segments; version 2 alone.
        segments: The SHA-256 that names each segment; version 2 alone.
        own: The lists of what this run added; version 2 alone.
    """

    run: str
    status: str
    started: Moment
    rows: RowCounts
    batchscore_manifest: Count = WHOLE
    finished: Moment | None = None
    job: str = ""
    slice: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    engine: str = ""
    device: str = ""
    workers: Count = 0
    cores: Count = 0
    batch_rows: Count = 0
    tile_rows: Count = 0
    inference: dict[str, Any] | None = None
    actor: str = ""
    job_sha256: str = ""
    fingerprint: str = ""
    score: str = ""
    score_facts: dict[str, Any] = field(default_factory=dict)
    model: ModelFacts = field(default_factory=ModelFacts)
    packages: dict[str, Any] = field(default_factory=dict)
    changed: list[Any] = field(default_factory=list)
    rescored: list[Any] = field(default_factory=list)
    seconds: float = 0.0
    phases: dict[str, float] | None = None
    start_up_seconds: dict[str, float] = field(default_factory=dict)
    base: str | None = None
    columns: Annotated[list[Any], Each(_PAIR)] = field(default_factory=list)
    files: Annotated[list[Any], Each(FileEntry)] = field(default_factory=list)
    replaced: Annotated[list[Any], Each({"type": "string"})] = field(default_factory=list)
    rejects: RejectedRows = field(default_factory=RejectedRows)
    bad_shards: Annotated[list[Any], Each(BadShardEntry)] = field(default_factory=list)
    damaged: dict[str, Any] = field(default_factory=dict)
    checks: list[JudgedCheck] = field(default_factory=list)
    column_checks: list[Any] = field(default_factory=list)
    drift: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    profile_sha256: str | None = None
    profile_files: dict[str, FileDigest] = field(default_factory=dict)
    stage_seconds: dict[str, Any] | None = None
    limited_by: str | None = None
    timings: dict[str, Any] | None = None
    reused_units: Count = 0
    beam_metrics: list[Any] = field(default_factory=list)
    units: Annotated[list[Any], Each(UnitEntry)] = field(default_factory=list)
    shards: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    inputs: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    error: str = ""
    released: Decision = field(default_factory=Decision)
    discarded: Decision = field(default_factory=Decision)
    revoked: Decision = field(default_factory=Decision)
    restored: Decision = field(default_factory=Decision)
    rollback: Decision = field(default_factory=Decision)
    undoes: str = ""
    published_at: str | None = None
    composed: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    own: SegmentLists = field(default_factory=SegmentLists)

    @property
    def public_since(self) -> str | None:
        """When the run was published: at its release if it was held, else when it ended."""
        return self.released.at or self.finished

    @property
    def releaser(self) -> str | None:
        """The person who released the run; None if it was not held, or is still held."""
        return self.released.by or None


_KEYS = frozenset(each.name for each in fields(Manifest))


def check_manifest(facts: Any, run: str) -> dict[str, Any]:
    """Returns a manifest of a run, as it was written, whose values have their types.

    Keys that this version does not know stay. Lists of files, units and shards are read by
    `published_records`, which a run of a million files needs once.

    Raises:
        VersionError: A newer batchscore wrote it.
        ValueError: It is damaged; the message is short.
    """
    read_manifest_model(facts, run)
    checked: dict[str, Any] = facts
    return checked


def read_manifest_model(facts: Any, run: str) -> Manifest:
    """Returns a run's manifest with its values as attributes; raises as `check_manifest`."""
    manifest_version(facts)
    manifest = decode(Manifest, facts)
    if manifest.run != run:
        raise ValueError("its run cannot be right: it is of another one")
    return manifest


def manifest_version(facts: Any) -> int:
    """Returns a manifest's version; VersionError if a newer batchscore wrote it."""
    run = facts.get("run") if isinstance(facts, dict) else None
    return require_version(facts, VERSION, SEGMENTED, f"manifest of run {one_line(repr(run))}")


def build_manifest(**facts: Any) -> dict[str, Any]:
    """Returns a new manifest of version 1.

    Raises:
        ValueError: A key is not one of a manifest, or a value has another type than its key.
    """
    made = {VERSION: WHOLE, **facts}
    strange = sorted(set(made) - _KEYS)
    if strange:
        raise ValueError(f"{strange[0]!r} is no key of a manifest")
    return check_manifest(made, str(made["run"]))


def manifest_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a manifest."""
    return json_schema(Manifest, "batchscore manifest")
