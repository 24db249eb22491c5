"""The manifest as a typed document: its keys, its versions, one builder and one validator."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any

from batchscore.messages.wording import one_line
from batchscore.runs.manifest_parts import (
    BadShardEntry,
    Decision,
    FileDigest,
    FileEntry,
    JudgedCheck,
    ModelFacts,
    RejectedRows,
    ResourceUsage,
    RowCounts,
    SegmentLists,
    ShardEntry,
    Slowness,
    Stopped,
    UnitEntry,
)
from batchscore.runs.submission import SUBMITTED
from batchscore.storage.typed import (
    SOURCE,
    Count,
    Each,
    Maybe,
    Moment,
    decode,
    json_schema,
    require_version,
)

VERSION = "batchscore_manifest"
WHOLE, SEGMENTED = 1, 2
"""What the version says: the lists are whole, or partly in segments."""
FOUND_FINISHED = "units_found_finished"
"""Beam's counter of units that were finished when an engine started its work again."""

_EXIT_CODES = {SUBMITTED: 0, "published": 0, "empty": 0, "unchanged": 0, "held": 3}
_STOPPED = (130, 143)

_PAIR = {"type": "array", "prefixItems": [{"type": "string"}] * 2, "minItems": 2, "maxItems": 2}


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
        usage: What the run used: CPU time, memory, bytes, a GPU.
        slow: That it took at least twice as long as the last runs like it.
        reused_units: Units of which an earlier run scored the rows.
        beam_metrics: Counters and distributions of Beam. `units_found_finished` counts units that
            were finished when the engine started its work again, and were not scored again.
        units: All units that are published by it.
        shards: The shards that units read; units refer to them by index.
        inputs: All shards of the input.
        error: Why the run failed or was stopped.
        stopped: Who stopped or cancelled the run.
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
        document: The manifest as JSON, with keys that this version does not know.
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
    rescored: Maybe[list[Any]] = None
    seconds: float = 0.0
    phases: dict[str, float] | None = None
    start_up_seconds: dict[str, float] = field(default_factory=dict)
    base: str | None = None
    columns: Annotated[list[Any], Each(_PAIR)] = field(default_factory=list)
    files: Annotated[list[Any], Each(FileEntry)] = field(default_factory=list)
    replaced: Annotated[list[Any], Each({"type": "string"})] = field(default_factory=list)
    rejects: Maybe[RejectedRows] = None
    bad_shards: Annotated[list[Any], Each(BadShardEntry)] = field(default_factory=list)
    damaged: dict[str, Any] = field(default_factory=dict)
    checks: Maybe[list[JudgedCheck]] = None
    column_checks: list[Any] = field(default_factory=list)
    drift: dict[str, Any] | None = None
    profile: dict[str, Any] | None = None
    profile_sha256: str | None = None
    profile_files: dict[str, FileDigest] = field(default_factory=dict)
    stage_seconds: dict[str, Any] | None = None
    limited_by: str | None = None
    timings: dict[str, Any] | None = None
    usage: Maybe[ResourceUsage] = None
    slow: Maybe[Slowness] = None
    reused_units: Maybe[Count] = None
    beam_metrics: list[Any] = field(default_factory=list)
    units: Annotated[Maybe[list[Any]], Each(UnitEntry)] = None
    shards: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    inputs: Annotated[list[Any], Each(ShardEntry)] = field(default_factory=list)
    error: Maybe[str] = None
    stopped: Maybe[Stopped] = None
    released: Maybe[Decision] = None
    discarded: Maybe[Decision] = None
    revoked: Maybe[Decision] = None
    restored: Maybe[Decision] = None
    rollback: Maybe[Decision] = None
    undoes: str = ""
    published_at: str | None = None
    composed: list[str] = field(default_factory=list)
    segments: list[str] = field(default_factory=list)
    own: SegmentLists = field(default_factory=SegmentLists)
    document: Annotated[dict[str, Any], SOURCE] = field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def public_since(self) -> str | None:
        """When the run was published: at its release if it was held, else when it ended."""
        return self.released.at if self.released else self.finished

    @property
    def releaser(self) -> str | None:
        """The person who released the run; None if it was not held, or is still held."""
        return self.released.by if self.released else None

    @property
    def paths(self) -> list[str]:
        """The scored files that it publishes, relative to the output."""
        return [str(file["path"]) for file in self.files]

    @property
    def bytes(self) -> int:
        """The size of these files."""
        return sum(int(file["bytes"]) for file in self.files)

    @property
    def input_bytes(self) -> int:
        """The size of all shards of the input."""
        return sum(int(shard["size"]) for shard in self.inputs)

    @property
    def reject_reasons(self) -> dict[str, Any]:
        """Rejected rows by stage, error and message; none if the run did not come to its rows."""
        return self.rejects.reasons if self.rejects else {}

    def without_lists(self) -> Manifest:
        """Returns the manifest without lists that may have a million items, and without its JSON.

        For those who keep many manifests at the same time.
        """
        lists: dict[str, Any] = {"files": [], "units": None, "shards": [], "inputs": []}
        return replace(self, **lists, own=SegmentLists(), document={})

    def decision(self, kind: str) -> Decision | None:
        """Returns what a person decided about the run: `released`, `revoked` and so on."""
        found: Decision | None = getattr(self, kind)
        return found

    @property
    def failed_checks(self) -> list[JudgedCheck]:
        """The checks that the run did not pass."""
        return [check for check in self.checks or () if not check.passed]

    @property
    def why(self) -> str:
        """Why the run published nothing: its error, or what failed checks found; else empty."""
        found = "; ".join(f"{check.name}: {check.detail}" for check in self.failed_checks)
        return found if self.error is None else self.error

    @property
    def exit_code(self) -> int:
        """The exit code of the command that ran the job; 1 if the run was taken back since."""
        if self.status == "interrupted":
            code = self.stopped.exit_code if self.stopped else 0
            return code if code in _STOPPED else min(_STOPPED)
        return _EXIT_CODES.get(self.status, 1)

    @property
    def attempts(self) -> dict[str, str]:
        """The attempt that counts of each of its units; LookupError if a unit is damaged."""
        return {str(unit["unit"]): str(unit["attempt"]) for unit in self.units or ()}

    def read_units(self) -> list[UnitEntry]:
        """Returns its units; none if the run did not come to them, or they lie in segments.

        Raises:
            ValueError: One is damaged.
        """
        return [decode(UnitEntry, unit) for unit in self.units or ()]

    def require(self, *keys: str) -> None:
        """Raises KeyError where a key is absent, if a default would hide that."""
        for key in keys:
            if key not in self.document:
                raise KeyError(key)

    def updated(self, **facts: Any) -> Manifest:
        """Returns the manifest with other values, among them whole lists; others stay as written.

        Raises:
            ValueError: A value has another type than its key.
        """
        document = {**self.document, **facts}
        if self.composed:
            document["composed"] = [key for key in self.composed if key not in facts]
        return decode_manifest(document, self.run)

    def without(self, key: str) -> Manifest:
        """Returns the manifest without a key."""
        return decode_manifest({k: v for k, v in self.document.items() if k != key}, self.run)


_KEYS = frozenset(each.name for each in fields(Manifest)) - {"document"}


def decode_manifest(document: Any, run: str) -> Manifest:
    """Returns a manifest of a run, read from JSON; keys that this version does not know stay.

    Items of the lists of files, units and shards are read by `published_records`, which a run of a
    million files needs once.

    Raises:
        VersionError: A newer batchscore wrote it.
        ValueError: It is damaged; the message is short.
    """
    manifest_version(document)
    manifest = decode(Manifest, document)
    if manifest.run != run:
        raise ValueError("its run is not valid: it belongs to another run")
    return manifest


def manifest_version(facts: Any) -> int:
    """Returns a manifest's version; VersionError if a newer batchscore wrote it."""
    run = facts.get("run") if isinstance(facts, dict) else None
    return require_version(facts, VERSION, SEGMENTED, f"manifest of run {one_line(repr(run))}")


def build_manifest(**facts: Any) -> Manifest:
    """Returns a new manifest of version 1.

    Raises:
        ValueError: A key is not one of a manifest, or a value has another type than its key.
    """
    made = {VERSION: WHOLE, **facts}
    strange = sorted(set(made) - _KEYS)
    if strange:
        raise ValueError(f"{strange[0]!r} is not a key of a manifest")
    return decode_manifest(made, str(made["run"]))


def manifest_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a manifest."""
    return json_schema(Manifest, "batchscore manifest")
