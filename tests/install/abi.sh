#!/usr/bin/env bash
# abi.sh check|save ABI.xml LIBRARY [HEADERS]: the library's binary interface, as abidw writes it, of what the headers declare. `check`: does the library still
# serve programs that were linked with the release whose interface ABI.xml keeps? Additions are fine, and kept with `save` when a version is released.
# Removals and changes fail: src/doc/releases.md.
set -uo pipefail
command -v abidw >/dev/null || { echo "check-abi: abidw and abidiff are missing (Debian: abigail-tools)" >&2; exit 1; }
# Nothing that differs from machine to machine; locations are needed to tell public types.
interface() {
    abidw --headers-dir "${3:-include}" --drop-private-types --exported-interfaces-only --no-corpus-path --no-comp-dir-path --no-elf-needed \
        --out-file "$1" "$2" && sed -i -E "s/ (filepath|line|column)='[^']*'//g; s/ path='[^']*'//g; s/ architecture='[^']*'//" "$1"
}
if [ "$1" = save ]; then
    interface "$2" "$3" "${4:-}"
    exit
fi
new=$(mktemp --suffix=.xml)
trap 'rm -f "$new"' EXIT
interface "$new" "$3" "${4:-}" || { echo "check-abi: abidw failed" >&2; exit 1; }
out=$(abidiff --no-show-locs --no-added-syms "$2" "$new")
rc=$?
[ -z "$out" ] || echo "$out"
# Bits of its exit code: 1 error, 2 usage, 4 a change, 8 one that surely breaks programs.
if [ $((rc & 3)) -ne 0 ]; then
    echo "check-abi: abidiff failed ($rc)" >&2
    exit 1
elif [ $rc -ne 0 ]; then
    echo "check-abi: programs linked with the last release would break: a new soname is needed (ABI in the Makefile)" >&2
    exit 1
fi
added=$(abidiff --no-show-locs --added-fns "$2" "$new" | grep '\[A\]')
if [ -n "$added" ]; then
    echo "$added"
    echo "check-abi: new functions; what was there is unchanged"
else
    echo "check-abi: the interface is that of the last release"
fi
