#!/bin/sh
# Install the browser of the report's tests from the system's packages, unless it is there.
set -eu

if command -v chromium >/dev/null; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "apt-get: no such command; install Chromium so that \`chromium\` is found on the PATH." >&2
    exit 1
fi
root=$([ "$(id -u)" = 0 ] || echo sudo)
$root apt-get update --quiet=2
$root apt-get install --yes --quiet=2 --no-install-recommends chromium
