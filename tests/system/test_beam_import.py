"""Beam is imported without what batchscore does not need, and stays complete for others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

pytestmark = pytest.mark.slow

PACKAGES = {
    "beartype",
    "bson",
    "cryptography",
    "httplib2",
    "pandas",
    "pymongo",
    "pyparsing",
    "requests",
    "torch",
    "urllib3",
}
"""What Beam imports and batchscore leaves out."""

# Prints which packages were asked for, and what Beam offers; torch is refused, since it takes a
# second to import.
OFFER = """
import json, sys

class Asked:
    found = set()
    def find_spec(self, name, path=None, target=None):
        self.found.add(name.partition(".")[0])
        if name == "torch":
            raise ImportError(name)

sys.meta_path.insert(0, Asked())
if sys.argv[1] == "lean":
    import batchscore.system.beam_import
import apache_beam
import apache_beam.ml.inference.base
from batchscore.engines.beam_private import option_parser
asked = sorted(Asked.found)
names = sorted({name for name in dir(apache_beam.io) if not name.startswith("_")})
every = json.loads(sys.argv[2]) or names
found = {name: getattr(apache_beam.io, name) for name in every}
homes = {name: f"{type(each)} of {getattr(each, '__module__', '')}" for name, each in found.items()}
options = sorted(option_parser()._option_string_actions)
print(json.dumps({"asked": asked, "names": names, "homes": homes, "options": options}))
"""


def offer(how: str, names: list[str] | None = None) -> Any:
    """What a process asked for and has, which imported Beam in one of two ways."""
    program = [sys.executable, "-c", OFFER, how, json.dumps(names)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def test_what_is_left_out_is_imported_when_it_is_asked_for() -> None:
    """Beam itself would import all of it; without it, names and options of Beam are the same."""
    full = offer("full")
    lean = offer("lean", full["names"])
    assert set(full["asked"]) >= PACKAGES
    assert not set(lean["asked"]) & PACKAGES
    assert lean["homes"] == full["homes"]
    assert lean["options"] == full["options"]
    # Beam leaves these out itself if they cannot be imported; they must not be found by accident.
    assert set(full["names"]) - set(lean["names"]) >= {"ReadFromBigQuery", "ReadFromMongoDB"}


# Uses, after batchscore, what batchscore left out.
AFTER = """
import sys
from batchscore.system.beam_import import beam
assert beam.io.textio.ReadFromCsv is beam.io.ReadFromCsv
from apache_beam.io import ReadFromMongoDB, mongodbio
assert mongodbio.ReadFromMongoDB is ReadFromMongoDB and mongodbio.MongoClient is not None
from apache_beam.io.gcp.bigquery import WriteToBigQuery
assert beam.io.WriteToBigQuery is WriteToBigQuery
from apache_beam.internal.http_client import get_new_http
import httplib2
assert isinstance(get_new_http(), httplib2.Http)
assert "apache_beam.ml.inference.model_manager" not in sys.modules
from apache_beam.io.filesystems import FileSystems
assert "apache_beam.io.gcp.gcsfilesystem" not in sys.modules
assert type(FileSystems.get_filesystem("/tmp/a")).__name__ == "LocalFileSystem"
assert type(FileSystems.get_filesystem("gs://bucket/a")).__name__ == "GCSFileSystem"
try:
    beam.io.ReadFromNowhere
except AttributeError as error:
    print(error)
"""

# Checks types, encrypts, and converts batches; Beam itself is in argument 1, or batchscore's.
FRAMES = """
import sys
from collections.abc import Iterator
from importlib import import_module
from typing import NamedTuple

import_module(sys.argv[1])
import apache_beam as beam
from apache_beam.ml.inference.base import ModelHandler, RunInference
from apache_beam.transforms import util
from apache_beam.typehints.typehints import is_consistent_with
import pandas as pd

kinds = (int, str, bytes, object, type(None), list[int], tuple[int, ...], Iterator[int])
print([is_consistent_with(one, other) for one in kinds for other in kinds])
key = b"0123456789abcdef0123456789abcdef0123456789a="
print(util.Fernet(key).decrypt(util.Fernet(key).encrypt(b"text")), util.Fernet.__module__)

class Row(NamedTuple):
    number: int

class Tenfold(beam.DoFn):
    def infer_output_type(self, input_type):
        return Row
    def process_batch(self, batch: pd.DataFrame) -> Iterator[pd.DataFrame]:
        yield batch * 10

class Total(ModelHandler):
    def load_model(self):
        return pd.DataFrame.sum
    def run_inference(self, batch, model, inference_args=None):
        return [int(model(frame)["number"]) for frame in batch]

beam.coders.registry.register_coder(Row, beam.coders.RowCoder)
with beam.Pipeline(runner="FnApiRunner") as pipeline:
    frame = pd.DataFrame({"number": [1, 2]})
    rows = pipeline | beam.Create([Row(3)]).with_output_types(Row) | beam.ParDo(Tenfold())
    _ = rows | "rows" >> beam.Map(print)
    _ = pipeline | "frame" >> beam.Create([frame]) | RunInference(Total()) | beam.Map(print)
print(beam.typehints.pandas_type_compatibility.PANDAS_TO_BEAM[frame["number"].dtype])
"""


def test_pandas_types_and_keys_work_as_without_batchscore() -> None:
    """Type checks, batches of pandas frames and encryption are Beam's own, imported late."""
    runs = [
        subprocess.run([sys.executable, "-c", FRAMES, name], capture_output=True, text=True)
        for name in ("apache_beam", "batchscore.system.beam_import")
    ]
    assert {done.returncode for done in runs} == {0}, runs[-1].stderr
    printed = [sorted(done.stdout.splitlines()) for done in runs]
    assert printed[0] == printed[1]
    assert {"3", "Row(number=30)", "b'text' cryptography.fernet"} <= set(printed[0])


# Imports Beam before batchscore does.
BEFORE = """
import sys
import apache_beam, httplib2
from apache_beam.typehints.batch import BatchConverter
own = BatchConverter.from_typehints
from apache_beam.io import ReadFromMongoDB, mongodbio
from batchscore.system.beam_import import beam
assert beam.io.ReadFromMongoDB is ReadFromMongoDB and sys.modules["httplib2"] is httplib2
assert not hasattr(beam.io, "__getattr__") and not hasattr(beam.typehints, "__getattr__")
assert BatchConverter.from_typehints is own
"""


@pytest.mark.parametrize(
    ("program", "printed"),
    [(AFTER, "module 'apache_beam.io' has no attribute 'ReadFromNowhere'\n"), (BEFORE, "")],
    ids=["after", "before"],
)
def test_others_have_all_of_beam(program: str, printed: str) -> None:
    """Who imports Beam before or after batchscore has texts, MongoDB, BigQuery and HTTP."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, printed), done.stderr
