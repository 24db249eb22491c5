#!/bin/sh
# Fetch the Flink cluster of the tests into .tools/flink, and what it needs, unless it is there.
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v javac >/dev/null || missing="openjdk-17-jdk-headless"
command -v mvn >/dev/null || missing="$missing maven"
if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null; then
        echo "apt-get: no such command; install a JDK 17 and Maven for the tests on Flink." >&2
        exit 1
    fi
    root=$([ "$(id -u)" = 0 ] || echo sudo)
    $root apt-get update --quiet=2
    $root apt-get install --yes --quiet=2 --no-install-recommends $missing
fi
make --quiet env
.venv/bin/python -m tools.flink fetch
