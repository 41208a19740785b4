#!/usr/bin/env bash
# Single bits of archives flipped, one at a time: found, or without effect on what is restored (flips.c). By default a sample; "all": every bit
# of one archive, 4,000 places of two others; FLIPS_REPORT=FILE.md keeps that table.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
box=$(mktemp -d)
trap 'rm -rf "$box"' EXIT
for kind in small tiles; do
    "$PYTHON" tests/flips/zoo.py "$box/$kind" $kind
    "$DELTAZOO" compress "$box/$kind/zoo.yaml" --recipe "$box/$kind/recipe.yaml" -o "$box/$kind.h5" -q >/dev/null 2>&1
done
"$DELTAZOO" compress "$box/small/zoo.yaml" --recipe "$box/small/recipe.yaml" --set method=auto -o "$box/auto.h5" -q >/dev/null 2>&1
ln -s small "$box/auto"
try() { # KIND HOW NUMBER
    build/"$FLAVOUR"/flips "$box/$1.h5" "$box/$1/base" "$2" "$3" | tee "$box/$1.md"
}
if [ "${1:-}" = all ]; then
    try small every 1
    try tiles random 4000
    try auto random 4000
    if [ -n "${FLIPS_REPORT:-}" ]; then
        {
            printf '# Bits flipped\n\n`make check-flips FLIPS_REPORT=%s`: every bit of one archive and 4,000 random ones of two others, one at a time\n(tests/flips/zoo.py: two tasks each, lossy, lossless, equal,' \
                "$FLIPS_REPORT"
            printf ' dropped, absent and grown tensors, side files). *Detected*: `verify` fails with a text. *Harmless*: `verify` is content, and\n'
            printf 'everything restores to the same bytes (spare bits of deflate, zstd and HDF5). *Wrong* would be anything else.\n'
            for kind in small tiles auto; do
                printf '\n%s, %s bytes%s\n\n' "$kind" "$(stat -c %s "$box/$kind.h5")" "$(case $kind in tiles) echo ', with tensors of two tiles' ;; auto) echo ', as the first, by method auto' ;; esac)"
                grep '^|' "$box/$kind.md"
            done
        } >"$FLIPS_REPORT"
    fi
else
    try small every 67
    try tiles random 300
    try auto random 300
fi
