#!/bin/sh
# Install Airflow for its tests into .tools/airflow, an environment of its own, unless it is there.
set -eu
cd "$(dirname "$0")/.."

home=.tools/airflow
wanted=jobs/airflow/requirements.txt
if cmp --silent "$wanted" "$home/installed.txt"; then
    exit 0
fi
make --quiet env
# Airflow's standard provider needs Python 3.11 or newer; uv finds one, or says that there is none.
.venv/bin/uv venv --quiet --clear --python ">=3.11,<3.14" "$home"
.venv/bin/uv pip install --quiet --require-hashes --python "$home/bin/python" --requirement "$wanted"
cp "$wanted" "$home/installed.txt"
