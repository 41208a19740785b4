#!/usr/bin/env bash
# abi.sh ABI.xml LIBRARY: does the library still serve programs that were linked with the release whose interface is kept in ABI.xml (made by abidw)?
# Additions are fine: they are shown, and kept with `make abi` when a version is released. Removals and changes fail: src/doc/releases.md.
set -uo pipefail
command -v abidiff >/dev/null || { echo "check-abi: abidiff is missing (Debian: abigail-tools)" >&2; exit 1; }
out=$(abidiff --headers-dir2 include --drop-private-types --no-show-locs "$1" "$2")
rc=$?
[ -z "$out" ] || echo "$out"
# Bits of its exit code: 1 error, 2 usage, 4 a change, 8 one that breaks programs.
if [ $((rc & 3)) -ne 0 ]; then
    echo "check-abi: abidiff failed ($rc)" >&2
elif [ $((rc & 8)) -ne 0 ] || grep -qE '^ *(Removed|Changed|[1-9][0-9]* (Removed|function with some indirect|functions? with some))|[1-9][0-9]* Removed|[1-9][0-9]* Changed' <<<"$out"; then
    echo "check-abi: programs linked with the last release would break: a new soname is needed (ABI in the Makefile)" >&2
    exit 1
elif [ $((rc & 4)) -ne 0 ]; then
    echo "check-abi: there is something new, and what was there is unchanged"
    exit 0
else
    echo "check-abi: the interface is that of the last release"
    exit 0
fi
exit 1
