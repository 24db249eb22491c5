#!/bin/sh
# Install a server of the tests into .tools/bin with Go, unless that version is there.
# Usage: install_go_server.sh PACKAGE VERSION WHAT, where WHAT is what its tests are about.
set -eu

package=$1 version=$2 what=$3
name=${package##*/}
folder=$(cd "$(dirname "$0")/.." && pwd)/.tools/bin

if ! command -v go >/dev/null; then
    echo "go: no such command; install Go (https://go.dev/dl) for the tests on $what." >&2
    exit 1
fi
if go version -m "$folder/$name" 2>/dev/null | grep -q "$name.*$version"; then
    exit 0
fi
GOBIN=$folder go install "$package@$version"
