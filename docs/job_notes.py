"""Notes of the job file's page: what may surprise about a section, below the table of its keys."""

from __future__ import annotations

NOTES = {
    "input": """\
**Files of a folder.** Every file counts whose path below the folder has no part that starts with
`_` or `.`; links are followed. A file that is not Parquet is an error, and so is an address that
names no file: a shard that is skipped in silence is lost rows.

**Hive keys** are the unbroken run of `key=value` folders right above a shard. They win over a
column of the same name in the file. `hive_types` above says how a key gets its type. A folder
whose name is not UTF-8 after decoding is an error.

**Which shard is the same shard.** A shard is its path, size and modification mark (or etag). A
file that was touched, or a folder that was moved, is another input; content is not hashed. Links
are resolved in the folder that `path` names, but not below it and not in its `key=value` folders:
two links to one file are two shards. If a shard lies behind such a link, its mark also holds the
path that the link leads to. Earlier versions resolved every link, and a shard that was published
under its resolved path, with the same hive keys, keeps that path. A path that two addresses name
is one shard.

**Tables of other formats.** Folders of Delta Lake, Hudi, Iceberg and similar formats are refused,
since they also hold rows that were removed. That includes a folder above or below such a folder, a
pattern in it, and a link to it. List the files of one snapshot instead: files that the input lists
one by one, or that links lead to one by one, are read.

**Credentials do not belong into addresses.** They come from the environment or from fsspec's own
configuration. A job is refused if a remote address has user information or a fragment, or a query
that a credential's word names (`auth`, `sig`, `…token`). Addresses of the model and of the output
may have no query but one that selects a version. Folders named `key=` or `token=` are only
folders. Each message, log and traceback hides what may be a credential.

**The query of an input's address** is never stored or shown. A shard's path has `***` instead of
the query's values, and a hash of the whole address. A shard that an earlier version published
under its whole address keeps that path.
""",
    "preprocess": """\
**Rows in, rows out.** A function returns as many rows as it gets, in the same order. A pandas
function must return the index that it was given: a frame that was sorted would give rows each
other's scores. If a function reorders rows and resets the index, the [test on a
sample](repairs.md#a-score-that-depends-on-more-than-its-row) finds it.

**No columns.** A job may read no column. Rows are then counted from the row groups, and the
function gets batches that have rows but no columns. An Arrow function finds the count in
`batch.num_rows`.

### Code of a job

**What counts as code.** A job's code is the files of its functions and of a weights file's
architecture, all files below the job's folder that these import, and the files that `code` lists.
If one of them changes, the slice is scored again. Imports are read from the text, so a branch
counts even if it does not run. A module whose name is computed must be listed under `code`. Other
files may lie next to them.

**Code that reads an unlisted file is refused**, and the message names the entry that `code` needs.
That holds for files below the job's folder that Python opens (`open`, `pathlib`, `os.open`,
`sqlite3`, `ctypes`), on any thread that has user code on its stack, in `check` and in runs.

- Allowed without an entry: hidden files, caches, virtual environments, folders that `pip install
  --target` filled, installed packages and their metadata, files that the code wrote itself in the
  same process, and the model's own files. Byte code counts as its source.
- A listed file is compared with its hash when the code opens it. If it was edited since the plan,
  the run fails.
- Not seen are readers in C++ or Rust (of Arrow, Polars, DuckDB, safetensors, tokenizers) and child
  processes. Declare what they read, or a change of it scores nothing again.
- Files elsewhere do not count. Use `--rescore` after a change.

**Imports work as in a Python that is started in the job's folder.** The folder of a function's own
file is searched first, then the job's folder, then installed packages.

- A file `random.py` is what the job's code imports; libraries keep theirs. Modules that are built
  into Python (`sys`, `os`, `time`), and batchscore, cannot be replaced.
- Folders below the job's folder that an editable install, `PYTHONPATH` or the code itself puts on
  `sys.path` hold modules of the job too. What the code adds to `sys.path` counts in its own calls
  alone.
- A folder without `__init__.py` is a package, unless an installed one has its name.
- Two jobs in one process do not share modules, and each version of the code runs once. Code is
  compiled from the bytes that were hashed, never taken from `__pycache__`.
- Processes that a function starts by `spawn` do not know these modules; those by `fork` do.
- A process that a function forks must end within it, by `os._exit`. If it returns or raises, it
  is ended with a message, since a copy of the run would write into the same files.
- Worker processes end at once, without Python's clean-up. A function that keeps a file open
  flushes it itself, or closes it with `atexit`.
""",
    "runtime": """\
**Batches of long texts are smaller.** A batch has at most 32 MB of decoded texts, and so fewer
rows than `batch_rows` if texts are long. A shard is refused if the size of its texts cannot be
bounded: a page of more than 512 MB, or a dictionary of more than 256 MB.

**Several workers** each map the same model from disk. No address may then be `memory://`, which
belongs to one process.
""",
}
