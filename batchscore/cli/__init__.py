"""The command line: arguments to a job, a job to a command, results to lines and exit codes."""

from batchscore.cli.app import cli, main
from batchscore.cli.backfill import backfill
from batchscore.cli.bring import init, model
from batchscore.cli.decide import discard, release, rollback
from batchscore.cli.drift import compare, profile, report, tune
from batchscore.cli.follow import cancel, status, wait
from batchscore.cli.inspect import files, runs, schema, show, trace, verify
from batchscore.cli.score import check, run

__all__ = ["cli", "main"]

_BRING = (init, model)
_SCORE = (check, run, backfill)
_READ = (runs, show, files, verify, trace, schema)
_FOLLOW = (status, wait, cancel)
_DECIDE = (release, discard, rollback)
_DRIFT = (profile, compare, report, tune)

for _command in (*_BRING, *_SCORE, *_READ, *_FOLLOW, *_DECIDE, *_DRIFT):
    cli.add_command(_command)
