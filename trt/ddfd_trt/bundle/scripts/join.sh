#!/bin/sh
# Joins the parts of a bundle and unpacks them: sh join.sh [FOLDER]
# Prints the folder. Where it is unpacked already, nothing is done. Needs sha256sum, tar, awk, and gzip or,
# of a bundle that is compressed so, xz or a python3 with lzma.
set -eu

fail() {
    echo "join.sh: $*" >&2
    exit 2
}

here=$(cd "$(dirname "$0")" && pwd)
manifest=$here/manifest.txt
[ -f "$manifest" ] || fail "expected $manifest, got none; copy it there"
for program in sha256sum tar awk; do
    command -v "$program" >/dev/null || fail "expected the program $program, got none; install it"
done
[ "$(awk '$1 == "format" { print $2 }' "$manifest")" = 1 ] ||
    fail "$manifest: expected format 1, got another; copy it again"
archive=$(awk '$1 == "fact" && $2 == "archive" { print $3 }' "$manifest")
if [ "${archive:-gzip}" = gzip ]; then
    command -v gzip >/dev/null || fail "expected the program gzip, got none; install it"
    unpacked() { gzip -dc; }
elif command -v xz >/dev/null; then
    unpacked() { xz -dc; }
elif python3 -c 'import lzma' 2>/dev/null; then
    unpacked() {
        python3 -c 'import lzma, shutil, sys
shutil.copyfileobj(lzma.open(sys.stdin.buffer), sys.stdout.buffer, 1 << 20)'
    }
else
    fail "expected the program xz or a python3 with lzma, got neither; install one," \
        "or make the bundle with --compression gzip"
fi
whole=$(awk '$1 == "whole" { print $2 }' "$manifest")
[ ${#whole} -eq 64 ] || fail "$manifest: expected a sha256 of the whole, got '$whole'; copy it again"
id=$(printf %.12s "$whole")
target=${1:-${DDFD_BUNDLE_DIR:-${TMPDIR:-/tmp}/ddfd-bundle-$id}}

if [ "$(cat "$target/.joined" 2>/dev/null || true)" = "$whole" ]; then
    echo "$target"
    exit 0
fi
[ ! -e "$target" ] || fail "$target: expected no such folder, got one that is not this bundle;" \
    "delete it or name another: sh join.sh FOLDER"

# Each part first, so that a damaged one is named.
count=0
while read -r key digest size name; do
    [ "$key" = part ] || continue
    [ -f "$here/$name" ] || fail "$here/$name: expected $size bytes, got none; copy this part"
    got=$(wc -c <"$here/$name")
    [ "$got" -eq "$size" ] ||
        fail "$here/$name: expected $size bytes, got $got; copy this part again"
    got=$(sha256sum <"$here/$name")
    [ "${got%% *}" = "$digest" ] ||
        fail "$here/$name: expected sha256 $digest, got ${got%% *}; copy this part again"
    count=$((count + 1))
    echo "join.sh: $name is whole" >&2
done <"$manifest"
[ "$count" -gt 0 ] || fail "$manifest: expected parts, got none; copy it again"

parts() {
    awk '$1 == "part" { print $4 }' "$manifest" | while read -r name; do
        cat "$here/$name"
    done
}

got=$(parts | sha256sum)
[ "${got%% *}" = "$whole" ] || fail "$manifest: expected the parts in the order of sha256 $whole," \
    "got ${got%% *}; copy the manifest again"
needed=$(awk '$1 == "fact" && $2 == "unpacked_bytes" { print int($3 / 1024) + 1 }' "$manifest")
mkdir -p "$(dirname "$target")"
free=$(df -Pk "$(dirname "$target")" | awk 'NR == 2 { print $4 }')
[ "$free" -ge "${needed:-0}" ] || fail "$(dirname "$target"): expected $needed KiB free, got $free;" \
    "name a folder on another disk: sh join.sh FOLDER"
partial=$target.partial
rm -rf "$partial"
mkdir "$partial"
parts | unpacked | tar -xf - -C "$partial" --no-same-owner
[ -x "$partial/run.sh" ] || fail "$partial: expected run.sh in the archive, got none; make it anew"
echo "$whole" >"$partial/.joined"
mv "$partial" "$target"
echo "$target"
