#!/bin/sh
# Install the S3 server of the tests into .tools/bin; Go is needed.
set -eu
exec sh "$(dirname "$0")/install_go_server.sh" github.com/versity/versitygw/cmd/versitygw v1.8.0 "S3"
