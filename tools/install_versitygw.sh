#!/bin/sh
# Install the S3 server of the tests into .tools/bin, unless that version is there; Go is needed.
set -eu

version=v1.8.0
folder=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin

if ! command -v go >/dev/null; then
    echo "go: no such command; install Go (https://go.dev/dl) for the tests on S3." >&2
    exit 1
fi
if go version -m "$folder/versitygw" 2>/dev/null | grep -q "versitygw.*$version"; then
    exit 0
fi
GOBIN=$folder go install "github.com/versity/versitygw/cmd/versitygw@$version"
