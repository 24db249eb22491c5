"""Where a run's time went, as lines of text for people; what was not measured is left out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from batchscore.messages.wording import counted, one_line
from batchscore.phases import PHASES, STEPS, label
from batchscore.runs.manifest_model import Manifest
from batchscore.telemetry import BETWEEN, STAGES, Metric, thread_of

TIMES = ("time", "thread", "seconds", "share", "speed")
_WAITS = {"wait_read": "data", "wait_infer": "the GPU", "wait_write": "the writer"}


def rate(rows: float, seconds: float) -> str:
    """Returns rows a second, short: 49k rows/s."""
    value = rows / seconds if seconds > 0 else 0.0
    if value >= 999_500:
        return f"{value / 1e6:.1f}M rows/s"
    if value >= 1e4:
        return f"{value / 1e3:.0f}k rows/s"
    return f"{counted(round(value), 'row')}/s"


def duration(seconds: float) -> str:
    """Returns seconds, or minutes and hours above 99 s."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def speed_and_limit(manifest: Manifest) -> str:
    """Returns how long a run took, how fast it was, what limited it, and what the model waited."""
    return f"{duration(manifest.seconds)}, {_speed(manifest)}{_waited(manifest)}{_slow(manifest)}"


def _slow(manifest: Manifest) -> str:
    """Returns that a run took much longer than runs like it; empty if it did not."""
    slow = manifest.slow
    if slow is None:
        return ""
    return (
        f"; SLOW: {slow.times:g} times the median of the last {slow.runs} runs like it, "
        f"{duration(slow.median_seconds)}"
    )


def used(manifest: Manifest) -> list[str]:
    """Returns what the run used, of what is known."""
    usage = manifest.usage
    if usage is None:
        return []
    found = {
        "CPU {}": None if usage.cpu_seconds is None else duration(usage.cpu_seconds),
        "memory {} in the largest process": _size_or_none(usage.peak_memory_bytes),
        "{} in all": _size_or_none(usage.total_memory_bytes),
        "read {}": _size_or_none(usage.read_bytes),
        "wrote {}": _size_or_none(usage.written_bytes),
        "GPU memory {}": _size_or_none(usage.gpu_memory_bytes),
        "GPU busy {}": None if usage.gpu_busy_share is None else f"{usage.gpu_busy_share:.0%}",
    }
    known = [words.format(value) for words, value in found.items() if value is not None]
    return [f"used   {', '.join(known)}"] if known else []


def _size_or_none(number: int | None) -> str | None:
    return None if number is None else size(number)


def size(number: float) -> str:
    """Returns bytes in the largest fitting unit: 6.7 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(number, 1) < 1000:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1000
    return f"{number:.1f} TB"


def _speed(manifest: Manifest) -> str:
    """Returns how fast a run scored, if it did, what limited it, and on which device."""
    rows = _scored_now(manifest)
    speed = f"{rate(rows, manifest.seconds)}{_limit(manifest)}, " if rows else ""
    return f"{speed}{manifest.device.partition(',')[0]}"


def _scored_now(manifest: Manifest) -> int:
    """Returns the rows that this run itself brought to an end."""
    rows = manifest.rows
    return rows.input - rows.reused if manifest.reused_units else rows.scored


def _limit(manifest: Manifest) -> str:
    limited_by, share = manifest.limited_by, _timings(manifest).get("share")
    if not limited_by:
        return ""
    return f", limited by {limited_by}" + (f" ({share:.0%})" if share is not None else "")


def _waited(manifest: Manifest) -> str:
    """Returns how long one worker's model waited for data; for the writer, where that is more."""
    seconds, workers = _seconds(manifest), manifest.workers
    if "wait_read" not in seconds:
        return ""
    what = max(_WAITS, key=lambda name: seconds.get(name, 0.0))
    waited = duration(seconds[what] / workers)
    if what == "wait_infer" and manifest.device.startswith("cpu"):
        return f"; the worker waited {waited} for the model's process"
    return f"; the model waited {waited} for {_WAITS[what]}"


def _timings(manifest: Manifest) -> Mapping[str, Any]:
    return manifest.timings or {}


def _seconds(manifest: Manifest) -> Mapping[str, float]:
    return manifest.stage_seconds or {}


def busy_and_help(manifest: Manifest) -> list[str]:
    """Returns the busy seconds of each stage, over all workers, and what would help."""
    seconds, advice = _seconds(manifest), _timings(manifest).get("help")
    busy = [f"{m.name} {seconds[m.name]:.2f}" for m in STAGES if m.name in seconds]
    lines = [f"busy seconds  {'  '.join(busy)}"] if busy else []
    return [*lines, f"help   {one_line(advice, 300)}"] if advice else lines


def times(manifest: Manifest) -> str:
    """Returns how long a command took, by phase, how fast that was and what limited it."""
    ran, phases = manifest.status != "unchanged", manifest.phases or {}
    spent = phase_seconds({each: s for each, s in phases.items() if ran or s})
    whole = f"{duration(manifest.seconds)}{f' ({spent})' if spent else ''}"
    return f"{whole}, {_speed(manifest)}{_slow(manifest)}" if ran else whole


def phase_seconds(phases: Mapping[str, float]) -> str:
    """Returns the seconds of each known phase: start-up 4.1, planning 0.3."""
    return ", ".join(f"{label(phase)} {phases[phase]:.1f}" for phase in PHASES if phase in phases)


def phases(manifest: Manifest) -> list[str]:
    """Returns the seconds of each phase, which add up to those of the run, and of each step.

    A run of an earlier version knows how long it took until its first unit was opened, and from
    there on.
    """
    if manifest.phases:
        found = manifest.phases
        spent = ", ".join(f"{label(each)} {found.get(each, 0.0):.3f} s" for each in PHASES)
        return [f"phases of {manifest.seconds:.3f} s: {spent}", *_start_up(manifest)]
    timings = _timings(manifest)
    if "scoring_s" not in timings:
        return []
    return [
        "start-up {start_up_s:.2f} s, scoring {scoring_s:.2f} s, {finish_s:.2f} s of it after the "
        "last unit".format(**timings)
    ]


def _start_up(manifest: Manifest) -> list[str]:
    """Returns a line with the steps before scoring that took any time."""
    steps = manifest.start_up_seconds
    spent = ", ".join(f"{step} {steps[step]:.3f}" for step in STEPS if steps.get(step))
    return [f"before scoring: {spent}"] if spent else []


def time_rows(manifest: Manifest) -> list[tuple[str, ...]]:
    """Returns the cells of a table with the columns TIMES: a row for each measure of the stages.

    Seconds are those of all workers. Shares are of the main threads' time; other threads work
    at the same time. The speed is that of one worker with nothing else to do.
    """
    seconds, whole = _seconds(manifest), _timings(manifest).get("thread_s")
    return [
        (
            m.name,
            thread_of(m, seconds),
            f"{seconds[m.name]:.2f}",
            f"{seconds[m.name] / whole:.0%}" if whole else "-",
            rate(_scored_now(manifest), seconds[m.name]) if _has_speed(m, seconds) else "-",
        )
        for m in (*STAGES, *BETWEEN)
        if m.name in seconds
    ]


def _has_speed(measure: Metric, seconds: Mapping[str, float]) -> bool:
    return measure in STAGES and seconds[measure.name] > 0
