#!/usr/bin/env bash
# abi.sh check|save ABI.xml LIBRARY [HEADERS]: the library's binary interface, as abidw writes it, of what the headers declare. `check`: does the library still
# serve programs that were linked with the last release? In a git checkout that is the newest tag v*, with the ABI.xml that it has; without a tag, or in an unpacked
# release, ABI.xml as it is here. Additions are fine, and kept with `save` when a version is released. Removals and changes fail, unless the soname is
# a new one: src/doc/releases.md.
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
new=$(mktemp --suffix=.xml) tagged=$(mktemp --suffix=.xml)
trap 'rm -f "$new" "$tagged"' EXIT
interface "$new" "$3" "${4:-}" || { echo "check-abi: abidw failed" >&2; exit 1; }
old=$2 release="the last release"
folder=$(dirname "$2")
if tag=$(git -C "$folder" describe --tags --abbrev=0 --match 'v[0-9]*' 2>/dev/null) && git -C "$folder" show "$tag:./$(basename "$2")" >"$tagged" 2>/dev/null; then
    old=$tagged release="the last release, $tag"
fi
soname() { grep -o "soname='[^']*'" "$1" | head -n 1; }
if [ "$(soname "$old")" != "$(soname "$new")" ]; then
    echo "check-abi: a new $(soname "$new"), not $(soname "$old") of $release: nothing to compare"
    exit 0
fi
out=$(abidiff --no-show-locs --no-added-syms "$old" "$new")
rc=$?
[ -z "$out" ] || echo "$out"
# Bits of its exit code: 1 error, 2 usage, 4 a change, 8 one that surely breaks programs.
if [ $((rc & 3)) -ne 0 ]; then
    echo "check-abi: abidiff failed ($rc)" >&2
    exit 1
elif [ $rc -ne 0 ]; then
    echo "check-abi: programs linked with $release would break: a new soname is needed (ABI in the Makefile)" >&2
    exit 1
fi
added=$(abidiff --no-show-locs --added-fns "$old" "$new" | grep '\[A\]')
if [ -n "$added" ]; then
    echo "$added"
    echo "check-abi: new functions; what was there is unchanged"
else
    echo "check-abi: the interface is that of $release"
fi
