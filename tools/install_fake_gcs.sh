#!/bin/sh
# Install the Google Cloud Storage server of the tests into .tools/bin, unless that version is there.
# Go is needed.
set -eu

version=v1.56.1
folder=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin

if ! command -v go >/dev/null; then
    echo "go: no such command; install Go (https://go.dev/dl) for the tests on Google Cloud Storage." >&2
    exit 1
fi
if go version -m "$folder/fake-gcs-server" 2>/dev/null | grep -q "fake-gcs-server.*$version"; then
    exit 0
fi
GOBIN=$folder go install "github.com/fsouza/fake-gcs-server@$version"
