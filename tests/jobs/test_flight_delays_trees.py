from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from batchscore.models.features import required_columns
from batchscore.models.folder import read_model_folder
from tests.jobs.test_flight_delays import MEASURED_AFTER_DEPARTURE
from tests.pages import ROOT, arguments, blocks, page, replay, sessions

JOB = ROOT / "jobs/flight_delays_trees"
README = page("jobs/flight_delays_trees/README.md")
FRAMEWORKS = {"xgboost": "model.ubj", "lightgbm": "model.txt"}

# The framework's own scores of a table, by somebody who knows nothing of batchscore.
OWN_SCORES = """
import json, sys
import numpy as np, pandas as pd, pyarrow.parquet as pq
framework, folder, table, out = sys.argv[1:]
(members,) = json.load(open(f"{folder}/preprocessing.json"))["inputs"].values()
frame = pq.read_table(table, partitioning=None).to_pandas()[[each["column"] for each in members]]
for each in members:
    if "vocabulary" in each:
        name, known = each["column"], each["vocabulary"]
        frame[name] = pd.Categorical(frame[name].where(frame[name].isin(known)), known)
if framework == "xgboost":
    import xgboost
    model = xgboost.XGBClassifier(n_jobs=1)
    model.load_model(f"{folder}/model.ubj")
    scores = model.predict_proba(frame)[:, 1]
else:
    import lightgbm
    scores = lightgbm.Booster(model_file=f"{folder}/model.txt").predict(frame, num_threads=1)
np.save(out, scores)
"""
# Bounds of intervals from all pairs of rows, in a process that finds the script's own imports.
BRUTE_FORCE = """
import json, sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import compare
score_b, late_b, day_b = np.array(json.loads(sys.argv[2]))
share_b = compare.placements(score_b, late_b)
found = compare.interval(share_b, late_b, np.arange(len(score_b)))
print(json.dumps([share_b.tolist(), found, compare.interval(share_b, late_b, day_b.astype(int))]))
"""


def python(*args: str) -> Any:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_readmes_commands_publish_the_frameworks_own_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command prints what is shown. Scores have the framework's bits, in each row of November.

    That month has a carrier that January lacks.
    """
    shutil.copytree(JOB, tmp_path / JOB.relative_to(ROOT))
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    for command, expected in sessions("".join(blocks("console", README))):
        words = arguments(command)
        assert words is not None
        replay(words, expected)
    shards = sorted((ROOT / "data/samples/flights/month=11").iterdir())
    november = pa.concat_tables([pq.read_table(each, partitioning=None) for each in shards])
    assert "OO" in november["carrier"].to_pylist()
    pq.write_table(november, "november.parquet")
    for framework in FRAMEWORKS:
        folder = JOB / f"model_{framework}"
        done = python("-c", OWN_SCORES, framework, str(folder), "november.parquet", "own.npy")
        assert done.returncode == 0, done.stderr
        known = november.append_column("own", pa.array(np.load("own.npy"))).to_pandas()
        published = pq.read_table(f"out/flight_delays_{framework}/data/month=11").to_pandas()
        both = known.merge(published, on=["day", "carrier", "flight", "origin"])
        assert len(both) == len(known) == len(published)
        assert (both["score"] == both["own"]).all()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_trees_read_what_the_network_may_read(framework: str) -> None:
    """No column is measured after departure, and none ties the model to a month."""
    trees = read_model_folder(str(JOB / f"model_{framework}"))
    assert trees.features is not None
    columns = {*required_columns(trees.features)}
    assert not columns & {*MEASURED_AFTER_DEPARTURE, "year", "month", "day", "time_hour"}
    assert trees.weights == FRAMEWORKS[framework]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_golden_rows_hold_gaps_and_unseen_categories(framework: str) -> None:
    """Every column is missing somewhere in the golden rows, and categories are unseen."""
    golden = pq.read_table(JOB / f"model_{framework}/golden.parquet")
    assert all(column.null_count for column in golden.columns[:-1])
    assert golden["carrier"].to_pylist().count("?") == 4


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_evaluation_is_of_the_networks_rows(framework: str) -> None:
    """Days, rows and base rate are those of the network, and the AUC is higher."""
    trees = json.loads((JOB / f"model_{framework}/evaluation.json").read_text())
    network = json.loads((ROOT / "jobs/flight_delays/model/evaluation.json").read_text())
    for fact in ("held_back_days", "rows", "late_rate", "log_loss_of_base_rate"):
        assert trees[fact] == network[fact]
    assert trees["passed"]
    assert trees["roc_auc"] >= trees["threshold"]["min_roc_auc"] > network["roc_auc"]


def test_the_readme_shows_the_figures_of_the_comparison() -> None:
    """Each figure of the table is one of comparison.json, and each of these is in the table."""
    compared = json.loads((JOB / "comparison.json").read_text())
    expected: list[float] = []

    def collect(found: Any) -> None:
        if isinstance(found, dict):
            for each in found.values():
                collect(each)
        else:
            expected.extend(found if isinstance(found, list) else [found])

    for rows in compared.values():
        assert f"{rows['rows']:,} flights" in README
        # An interval of the AUC itself over days is as wide as its difference's, and left out.
        collect(
            {n: {k: v for k, v in m.items() if k != "by_days"} for n, m in rows["models"].items()}
        )
    (table,) = re.findall(r"\| ROC AUC .*?\n\n", README, re.S)
    shown = [float(each.replace("−", "-")) for each in re.findall(r"−?\d\.\d{4}", table)]
    assert sorted(shown) == sorted(expected)


def test_intervals_are_those_of_the_definition() -> None:
    """DeLong's and Obuchowski's variance, from all pairs of rows, give the same bounds."""
    rng = np.random.default_rng(3)
    late_b = (rng.random(60) < 0.4).astype(float)
    score_b = np.round(rng.normal(size=60) + late_b, 1)
    day_b = rng.integers(0, 7, 60)
    given = json.dumps([score_b.tolist(), late_b.tolist(), day_b.tolist()])
    done = python("-c", BRUTE_FORCE, str(JOB), given)
    assert done.returncode == 0, done.stderr
    shares, by_rows, by_days = json.loads(done.stdout)
    late, other = np.flatnonzero(late_b == 1), np.flatnonzero(late_b == 0)
    diff = score_b[late][:, None] - score_b[other][None, :]
    won = (diff > 0) + 0.5 * (diff == 0)
    np.testing.assert_allclose(np.array(shares)[late], won.mean(axis=1))
    np.testing.assert_allclose(np.array(shares)[other], won.mean(axis=0))
    delong = won.mean(axis=1).var(ddof=1) / len(late) + won.mean(axis=0).var(ddof=1) / len(other)
    error = np.diff(by_rows)[0] / 2 / 2.0010  # Student's 97.5 % for 59 degrees of freedom
    # DeLong divides by n - 1 of each outcome, the sum over clusters by n - 1 of all.
    np.testing.assert_allclose(error**2, delong, rtol=0.05)
    auc, days = won.mean(), 0.0
    for day in range(7):
        mine = won[day_b[late] == day].mean(axis=1).sum() - auc * (day_b[late] == day).sum()
        theirs = won[:, day_b[other] == day].mean(axis=0).sum() - auc * (day_b[other] == day).sum()
        days += (mine / len(late) + theirs / len(other)) ** 2
    np.testing.assert_allclose(np.diff(by_days)[0] / 2, 2.4469 * np.sqrt(7 / 6 * days), rtol=1e-4)


@pytest.mark.slow
def test_the_comparison_reads_what_jobs_publish(tmp_path: Path) -> None:
    """The script scores a month with all three models, and finds AUCs within their intervals."""
    out = tmp_path / "comparison.json"
    done = python(str(JOB / "compare.py"), "--months", "2", "--out", str(out))
    assert done.returncode == 0, done.stderr
    ((name, found),) = json.loads(out.read_text()).items()
    assert (name, found["rows"], found["days"]) == ("February to December", 23_611, 28)
    assert found["models"].keys() == {"network", *FRAMEWORKS}
    for model in found["models"].values():
        low, high = model["by_flights"]
        assert low < model["roc_auc"] < high


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_the_committed_folder_comes_from_the_script(framework: str, tmp_path: Path) -> None:
    """Training passes the threshold, and gives the committed card, features and golden rows.

    Bits of trees may differ by kind of processor.
    """
    done = python(str(JOB / "train.py"), framework, "--out", str(tmp_path / "model"))
    assert done.returncode == 0, done.stdout + done.stderr
    folders = tmp_path / "model", JOB / f"model_{framework}"
    made, committed = (yaml.safe_load((each / "model.yaml").read_text()) for each in folders)
    assert made.pop("files").keys() == committed.pop("files").keys()
    assert made == committed
    features, known = (read_model_folder(str(each)).features for each in folders)
    assert features == known
    golden, kept = (pq.read_table(each / "golden.parquet") for each in folders)
    assert golden.drop_columns(["score"]) == kept.drop_columns(["score"])
    np.testing.assert_allclose(golden["score"].to_numpy(), kept["score"].to_numpy(), atol=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_training_twice_gives_the_same_bytes(framework: str) -> None:
    """The same rows give the same trees, to the byte."""
    program = f"""
import sys
sys.path.insert(0, {str(JOB)!r})
import pyarrow.parquet as pq, train
flights = pq.read_table({str(ROOT / "data/samples/flights/month=1")!r}, partitioning=None)
def trees():
    model = train.fit({framework!r}, train.split(flights)[0], 3)
    return model.get_booster().save_raw() if hasattr(model, "get_booster") else \\
        model.booster_.model_to_string()
sys.exit(trees() != trees())
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_trees_below_the_threshold_are_not_written(tmp_path: Path) -> None:
    """With a single tree the script exits 1 and leaves no folder."""
    folder = tmp_path / "model"
    done = python(str(JOB / "train.py"), "xgboost", "--trees", "1", "--out", str(folder))
    assert (done.returncode, folder.exists()) == (1, False), done.stdout + done.stderr
    assert "below the threshold: nothing written" in done.stderr
    assert os.listdir(tmp_path) == []


def test_the_training_imports_nothing_else_of_ours() -> None:
    """Whoever trains trees needs no name but those that `import batchscore` offers."""
    for name in ("train.py", "compare.py"):
        text = (JOB / name).read_text()
        found = re.findall(r"^\s*(?:from|import) (batchscore.*)$", text, re.M)
        assert found == ["batchscore as bs"]
