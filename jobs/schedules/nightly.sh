#!/bin/sh
# Scores a day: nightly.sh [YYYY-MM-DD], by default yesterday in UTC.
# Its exit code is batchscore's. 1 is tried again, since a second try goes on from what the first
# finished; 4 was waited for already; 2, 3 and interrupts are for people, or for the next start.
set -u
BIN=${BATCHSCORE_BIN:-/opt/batchscore/bin}
JOB=${BATCHSCORE_JOB:-/opt/batchscore/job.yaml}
PAUSE=${BATCHSCORE_PAUSE_SECONDS:-60}
day=${1:-$(date --utc --date=yesterday +%F)}

code=1
for try in 1 2 3; do
    [ "$try" = 1 ] || sleep "$PAUSE"
    "$BIN/batchscore" run "$JOB" --param "date=$day" --wait 2h
    code=$?
    [ "$code" = 1 ] || break
done
exit "$code"
