from __future__ import annotations

import gzip
import importlib.util
import io
import json
import shutil
import struct
import subprocess
import sys
from collections import Counter
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.factory import run_json
from tests.pages import ROOT, all_blocks, arguments, blocks, page, replay, run_code, sessions

JOB = ROOT / "jobs/digits"
DATA = ROOT / "data/samples/digits"
README = page("jobs/digits/README.md")
FORMATS = {
    "safetensors": "weights.safetensors",
    "onnx": "model.onnx",
    "keras": "model.keras",
    "h5": "model.h5",
}
# Of probabilities, between any two formats; the README states it.
TOLERANCE = 2e-6


def module(name: str) -> Any:
    """Return a module of the job, which no other import sees."""
    spec = importlib.util.spec_from_file_location(f"digits_{name}", JOB / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def python(*args: str) -> Any:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, check=False)


def png(pixels: Any) -> bytes:
    """Return the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(content, "PNG")
    return content.getvalue()


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder that holds what the README's commands need, and is the current one."""
    shutil.copytree(JOB, tmp_path / "jobs/digits")
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_all_formats_give_the_same_scores(clone: Path) -> None:
    """The README's commands print what it shows, and publish equal scores within its tolerance."""
    for command, expected in sessions("".join(blocks("console", README))):
        words = arguments(command)
        assert words is not None
        replay(words, expected)
    printed = io.StringIO()
    with redirect_stdout(printed):
        run_code("".join(blocks("python", README)), {})
    (shown,) = [text for language, _, text in all_blocks(README) if language == "text"]
    assert printed.getvalue() == shown
    others = [line.strip() for line in README.splitlines() if line.startswith("    batchscore run")]
    assert len(others) == len(FORMATS) - 1
    for command in others:
        words = arguments(command)
        assert words is not None
        replay(words, [])
    known = read(clone / "out/digits")
    accuracies = evaluation()["stratified_folds"]["accuracies"]
    right = np.array(known["read_as"].to_pylist(), int) == known["digit"].to_numpy()
    assert right.mean() == pytest.approx(accuracies[4], abs=1e-6)
    for name in FORMATS.keys() - {"safetensors"}:
        found = read(clone / f"out/digits_{name}")
        assert found["read_as"] == known["read_as"]
        ours, theirs = (np.array(each["scores"].to_pylist()) for each in (known, found))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def read(output: Path) -> pa.Table:
    return pq.read_table(output / "data").sort_by("id")


def evaluation() -> Any:
    return json.loads((JOB / "models/safetensors/evaluation.json").read_text())


@pytest.mark.slow
def test_images_that_cannot_be_read_are_rejected_with_a_reason(clone: Path) -> None:
    """One of each kind costs that row alone, and the others are scored."""
    table = pq.read_table(DATA / "fold=4/part-0.parquet", partitioning=None)
    images = table["image"].to_pylist()
    whole = images[0]
    images[10] = whole[:60]
    images[20] = b"GIF89a" + bytes(60)
    images[30] = png(np.zeros((8, 8, 3)))
    images[40] = png(np.zeros((9, 9)))
    images[50] = png(np.zeros((29, 8)))
    images[60] = None
    spoilt = table.set_column(1, "image", pa.array(images, pa.binary()))
    (clone / "in/fold=4").mkdir(parents=True)
    pq.write_table(spoilt, clone / "in/fold=4/part-0.parquet")
    done = run_json(
        "run",
        "jobs/digits/job.yaml",
        *("--set", "input.path=in"),
        *("--set", "rejects.max_ratio=0.1"),
    )
    assert (done["rows"]["scored"], done["rows"]["rejected"]) == (len(table) - 6, 6)
    (rejected,) = (clone / "out/digits/_batchscore").rglob("rejects/**/*.parquet")
    found = pq.read_table(rejected).to_pylist()
    reasons = {each["_row"]: f"{each['_message']}; {each['_detail']}" for each in found}
    expected = {
        10: "truncated",
        20: "cannot identify image file",
        30: "8 x 8 pixels and mode RGB; expected a grey one",
        40: "a list of 81, expected a list of 64 numbers",
        50: "8 x 29 pixels and mode L; expected",
        60: "null",
    }
    assert reasons.keys() == expected.keys()
    assert [words for row, words in expected.items() if words not in reasons[row]] == []


def test_the_images_are_those_of_scikit_learn() -> None:
    """Decoded pixels are its levels of 0 to 16, of which each is 15 steps of 255."""
    from sklearn.datasets import load_digits

    known = load_digits()
    table = pq.read_table(DATA).sort_by("id")
    (batch,) = table.combine_chunks().to_batches()
    pixels = module("features").decode(batch).column("pixels")
    assert table["id"].to_pylist() == [*range(1797)]
    assert table["digit"].to_pylist() == known.target.tolist()
    expected = (known.images * 15).astype(np.float32) / np.float32(255)
    assert (pixels.values.to_numpy() == expected.ravel()).all()
    assert set(pixels.value_lengths().to_pylist()) == {64}


def test_a_missing_image_has_no_pixels() -> None:
    """A null stays null, next to images of any size; and no images are no lists."""
    decode = module("features").decode
    images = [png(np.full((1, 2), 255)), None, png(np.full((2, 2), 51))]
    found = decode(pa.record_batch([pa.array(images, pa.binary())], ["image"]))
    assert found["pixels"].to_pylist() == [[1, 1], None, [pytest.approx(0.2)] * 4]
    none = decode(pa.record_batch([pa.array([], pa.binary())], ["image"]))
    assert (len(none["pixels"]), none["pixels"].type) == (0, found["pixels"].type)


def test_each_fold_has_its_share_of_each_digit() -> None:
    """The folds are stratified: counts of a digit differ by at most one."""
    table = pq.read_table(DATA)
    counts = Counter(zip(table["digit"].to_pylist(), table["fold"].to_pylist(), strict=True))
    for digit in range(10):
        found = [counts[digit, fold] for fold in range(5)]
        assert max(found) - min(found) <= 1


def test_the_folders_hold_one_network_and_its_evaluation() -> None:
    """All formats have one evaluation that passed, and the README shows its figures."""
    assert {each.name for each in (JOB / "models").iterdir()} == FORMATS.keys()
    for name, file in FORMATS.items():
        folder = JOB / "models" / name
        assert json.loads((folder / "evaluation.json").read_text()) == evaluation()
        # Some exporters note which file of this machine made a layer.
        assert b"site-packages" not in (folder / file).read_bytes()
    assert (JOB / "models/safetensors/net.py").read_bytes() == (JOB / "net.py").read_bytes()
    found = evaluation()
    assert found["passed"]
    assert found["stratified_folds"]["mean_accuracy"] >= 0.98
    for part in (found["stratified_folds"], found["folds_of_other_writers"]):
        assert f"{part['mean_accuracy'] * 100:.2f} %" in README
        assert " to ".join(f"{each * 100:.2f} %" for each in part["interval"]) in README
    whole = found["all_held_back_rows"]
    assert f"{whole['right']:,} of {found['rows']:,}" in README
    assert " to ".join(f"{each * 100:.2f} %" for each in whole["interval"]) in README


def write_idx(path: Path, array: Any) -> None:
    """Write bytes as MNIST's own files hold them; packed, if the name says so."""
    sizes = struct.pack(f">{array.ndim}I", *array.shape)
    content = bytes([0, 0, 8, array.ndim]) + sizes + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def test_files_of_mnist_are_read_packed_or_not(tmp_path: Path) -> None:
    """Images and digits are those written, under either name that is in use."""
    idx = module("idx")
    images, digits = np.arange(3 * 4 * 5).reshape(3, 4, 5), np.array([7, 0, 9])
    write_idx(tmp_path / "t10k-images-idx3-ubyte.gz", images)
    write_idx(tmp_path / "t10k-labels.idx1-ubyte", digits)
    found = idx.read_split(tmp_path, "t10k")
    assert (found[0] == images).all()
    assert (found[1] == digits).all()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), r"has 59 bytes for \[3, 4, 5\]"),
        (lambda file: file.write_bytes(b"\x89PNG"), "is no idx file"),
        (lambda file: write_idx(file, np.zeros((2, 4, 5))), "2 images and 3 labels"),
        (lambda file: file.unlink(), "has none of train-images-idx3-ubyte, "),
    ],
)
def test_other_files_are_refused(spoil: Any, words: str, tmp_path: Path) -> None:
    """A file that is cut, of another kind, of other rows, or missing is named."""
    write_idx(tmp_path / "train-images-idx3-ubyte", np.zeros((3, 4, 5)))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.zeros(3))
    spoil(tmp_path / "train-images-idx3-ubyte")
    with pytest.raises((ValueError, FileNotFoundError), match=words):
        module("idx").read_split(tmp_path, "train")


@pytest.mark.slow
def test_mnists_files_train_the_same_network(tmp_path: Path) -> None:
    """It takes images of 28 x 28 pixels; below the threshold nothing is written."""
    rng = np.random.default_rng(4)
    for name, rows in (("train", 40), ("t10k", 20)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (rows, 28, 28)))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte.gz", rng.integers(0, 10, rows))
    out = tmp_path / "models"
    arguments = ["--mnist", str(tmp_path), "--epochs", "1", "--out", str(out)]
    done = python(str(JOB / "train.py"), *arguments)
    assert (done.returncode, out.exists()) == (1, False), done.stderr
    assert json.loads(done.stdout)["rows"] == {"training": 40, "held_back": 20}
    assert done.stderr == "below the threshold: nothing written\n"


@pytest.mark.slow
def test_training_twice_gives_the_same_weights() -> None:
    """The same rows give the same network and figures, to the bit; a fold is judged unseen."""
    program = f"""
import sys
sys.path.insert(0, {str(JOB)!r})
import numpy as np, pyarrow.parquet as pq, safetensors.torch, train
table = pq.read_table({str(DATA)!r}).sort_by("id").slice(0, 500)
rows, held = train.tensors(table), np.arange(500) % 5 == 0
first, second = (train.check(rows, held, 3) for _ in range(2))
same = [safetensors.torch.save(net.state_dict()) for net, _ in (first, second)]
labels = train.predict(first[0], rows[0]).numpy()
right = (labels == table["digit"].to_numpy())[held].mean()
sys.exit(not (same[0] == same[1] and first[1] == second[1] and abs(right - first[1]) < 1e-9))
"""
    done = python("-c", program)
    assert done.returncode == 0, done.stderr
