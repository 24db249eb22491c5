#!/bin/sh
# Print the first Python from 3.10 to 3.14 that can make a virtual environment: the one asked for,
# else, if that was make's default, a newer one beside it.
set -eu

asked=$1
usable='import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))'

candidates=$asked
if [ "$asked" = python3 ]; then
    candidates="python3 python3.13 python3.12 python3.11 python3.10 python3.14"
fi
for python in $candidates; do
    if "$python" -c "$usable" 2>/dev/null; then
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            echo "$python"
            exit 0
        fi
        echo "$python cannot make a virtual environment: its ensurepip is missing." \
            "Install it (Debian, Ubuntu: apt install python3-venv) or name another: make PYTHON=…" >&2
        exit 1
    fi
done
found=$("$asked" --version 2>&1) || found="no such command"
echo "PYTHON=$asked ($found) will not do: Python 3.10 to 3.14 is needed." \
    "Install one, or name it: make PYTHON=/usr/bin/python3.12" >&2
exit 1
