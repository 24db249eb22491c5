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
if [ "$(id -u)" = 0 ]; then
    apt-get install --yes --no-install-recommends chromium
else
    sudo apt-get install --yes --no-install-recommends chromium
fi
