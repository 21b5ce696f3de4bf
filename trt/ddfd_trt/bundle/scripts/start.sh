#!/bin/sh
# Beside a bundle's parts: joins them on the first call, then runs a command in the bundle.
#   sh run.sh ddfd-engine MODEL.onnx --size 640x480
set -eu
here=$(cd "$(dirname "$0")" && pwd)
tree=$(sh "$here/join.sh") || exit $?
exec sh "$tree/run.sh" "$@"
