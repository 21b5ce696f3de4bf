#!/bin/sh
# Runs a command with the bundle's own Python and libraries; nothing is installed or changed.
#   run.sh ddfd-engine | ddfd-verify | ddfd-bench | python [ARGUMENTS]
set -eu

fail() {
    echo "run.sh: $*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd -P)
python=$(echo "$here"/python/bin/python3.*)
[ -x "$python" ] || fail "$python: expected the bundle's Python, got none; join the parts again"
[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
    fail "expected Linux x86_64, got $(uname -s) $(uname -m); make a bundle on such a machine"

# The machine's C library must be at least the one that the bundle's files were linked with.
needed=$(awk '$1 == "glibc" { print $2 }' "$here/facts.txt")
got=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{ print $2 }')
newest=$(printf '%s\n%s\n' "$needed" "${got:-0}" | sort -t . -k 1,1n -k 2,2n | tail -n 1)
[ "$newest" = "${got:-0}" ] || fail "expected glibc $needed or newer, got ${got:-another C library};" \
    "make the bundle on an older system"

# Nothing of another Python may be mixed in.
for name in $(env | sed -n 's/^\(PYTHON[A-Z]*\)=.*/\1/p'); do
    unset "$name"
done
export PYTHONHOME="$here/python"
export PYTHONPATH="$here/packages:$here/project:$here/project/trt"
export PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
# The driver's libraries may be known by this variable only, so it is kept behind the bundle's.
outside=${LD_LIBRARY_PATH:-}
# For programs of another Python that are started from here.
export DDFD_OUTSIDE_LIBRARIES="$outside"
export LD_LIBRARY_PATH="$here/python/lib:$here/lib:$here/packages/tensorrt${outside:+:$outside}"
if ! "$python" -S -c 'import ctypes; ctypes.CDLL("libstdc++.so.6")' 2>/dev/null; then
    LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$here/lib/fallback"
fi
# The bundle has stubs in place of cuBLAS and cuDNN.
export DDFD_OWN_KERNELS_ONLY=1
export DDFD_BUNDLE="$here"

[ $# -gt 0 ] || fail "expected ddfd-engine, ddfd-verify, ddfd-bench or python, got nothing"
command=$1
shift
case $command in
python | python3) exec "$python" "$@" ;;
ddfd-engine) exec "$python" -m ddfd_trt.engine_cli "$@" ;;
ddfd-bench) exec "$python" -m ddfd_trt.benchmark "$@" ;;
ddfd-verify) exec "$python" -c 'import sys; from ddfd_trt.cli import verify_main as main; sys.exit(main())' "$@" ;;
*) fail "expected ddfd-engine, ddfd-verify, ddfd-bench or python, got $command" ;;
esac
