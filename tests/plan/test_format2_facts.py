"""Test that outputs of versions that counted every file next to a function keep their rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from batchscore.job import load_job
from batchscore.plan import Plan, make_plan
from batchscore.plan.changes import changed_facts
from batchscore.plan.fingerprint import score_hash
from batchscore.plan.format2_facts import named_neighbours, respell_code, without_neighbours
from tests import factory


@pytest.fixture
def plan_of(tmp_path: Path) -> Callable[[list[str]], Plan]:
    """Plans a job with a function, a report next to it, and a table that it may declare."""
    (tmp_path / "lib").mkdir()
    for name in ("f.py", "report.html", "lib/unused.py", "job.log", "vocab.json", "lib/deep.json"):
        (tmp_path / name).write_text("def f(batch): return batch\n")
    factory.write_job(tmp_path, {"preprocess": {"function": "f.py:f"}})

    def plan(code: list[str]) -> Plan:
        return make_plan(load_job(str(factory.change_job(tmp_path, {"code": code}))))

    return plan


def facts_of_then(facts: Mapping[str, str], folder: Path) -> dict[str, str]:
    """Facts as commit 020ad64 wrote them: spelled as today's, but for the files."""
    kept = {name: value for name, value in facts.items() if not name.startswith("code ")}
    files = ("f.py", "report.html", "lib/unused.py", "vocab.json", "model/net.py")
    hashes = {f"code {name}": factory.sha256(folder / name) for name in files}
    return {**kept, "facts": "format 2", **hashes}


@pytest.mark.parametrize("code", [[], ["vocab.json"]])
def test_what_was_scored_then_is_unchanged(
    plan_of: Callable[[list[str]], Plan], tmp_path: Path, code: list[str]
) -> None:
    """Files that count no more are no change; the job's units are found under their old name."""
    plan = plan_of(code)
    before = facts_of_then(plan.score_facts, tmp_path)
    (tmp_path / "report.html").write_text("another report")
    facts = plan_of(code).score_facts
    assert changed_facts(facts, without_neighbours(before, facts)) == ()
    (tmp_path / "report.html").write_text("def f(batch): return batch\n")
    respelled = respell_code(facts, plan.loaded, {shard.path for shard in plan.shards})
    assert respelled is not None
    assert (respelled, score_hash(respelled)) == (before, score_hash(before))


def test_what_counts_and_differs_is_a_change(
    plan_of: Callable[[list[str]], Plan], tmp_path: Path
) -> None:
    """An edited file, and one that then nobody looked at."""
    plan = plan_of(["vocab.json", "lib/deep.json"])
    before = facts_of_then(plan.score_facts, tmp_path)
    (tmp_path / "vocab.json").write_text("[]")
    facts = plan_of(["vocab.json", "lib/deep.json"]).score_facts
    found = changed_facts(facts, without_neighbours(before, facts))
    assert found == ("code lib/deep.json", "code vocab.json")
    assert respell_code(facts, plan.loaded, ()) is None


@pytest.mark.parametrize("text", ["open(HERE / 'it.json')", "read(f'{HERE}/it.json')"])
@pytest.mark.parametrize("gone", [False, True])
def test_an_edited_file_that_code_names_is_a_change(
    plan_of: Callable[[list[str]], Plan], tmp_path: Path, text: str, gone: bool
) -> None:
    """Nobody declared it, and what is published was scored with what it held."""
    (tmp_path / "f.py").write_text(f"# 'lib/' report.html\ndef f(batch): return {text}\n")
    (tmp_path / "it.json").write_text("[]")
    facts = plan_of([]).score_facts
    before = facts_of_then(facts, tmp_path)
    before["code it.json"] = factory.sha256(tmp_path / "it.json")

    def changed() -> tuple[str, ...]:
        now = facts | named_neighbours(before, facts, str(tmp_path))
        return changed_facts(now, without_neighbours(before, now))

    (tmp_path / "report.html").write_text("another report")
    assert changed() == ()
    (tmp_path / "it.json").unlink() if gone else (tmp_path / "it.json").write_text("[1]")
    assert changed() == ("code it.json",)
    assert named_neighbours({**before, "facts": "format 3"}, facts, str(tmp_path)) == {}


def test_facts_of_today_are_compared_as_they_are(
    plan_of: Callable[[list[str]], Plan],
) -> None:
    """A file that was imported or declared, and no longer is, is a change."""
    before, facts = plan_of(["vocab.json"]).score_facts, plan_of([]).score_facts
    assert changed_facts(facts, without_neighbours(before, facts)) == ("code vocab.json",)
