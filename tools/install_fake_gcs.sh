#!/bin/sh
# Install the Google Cloud Storage server of the tests into .tools/bin; Go is needed.
set -eu
exec sh "$(dirname "$0")/install_go_server.sh" github.com/fsouza/fake-gcs-server v1.56.1 "Google Cloud Storage"
