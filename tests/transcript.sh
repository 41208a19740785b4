#!/usr/bin/env bash
# The transcript in src/doc/demo.md is what `make demo` prints, except for times and memory. transcript.sh write: puts it there; without a word it is compared.
set -uo pipefail
. "$(dirname "$0")/env.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
begin='<!-- tests/transcript.sh write -->' end='<!-- end of the transcript -->' page=src/doc/demo.md
tests/demo.sh 2>"$dir/err" >"$dir/out" || { cat "$dir/err"; exit 1; }
{ echo '```'; sed -n '/^\$ mpirun -n 2 deltazoo compress/,/^\$ h5ls/p' "$dir/out" | sed -e '/^\$ h5ls/d' -e 's/ *$//' | sed -e :a -e '/^\n*$/{$d;N;ba' -e '}'; echo '```'; } >"$dir/new"
if [ "${1:-}" = write ]; then
    awk -v begin="$begin" -v end="$end" -v new="$dir/new" '$0 == end { skip = 0 } !skip { print } $0 == begin { while ((getline line < new) > 0) print line; skip = 1 }' "$page" >"$dir/page" &&
        cat "$dir/page" >"$page"
    exit
fi
steady() { sed -E 's/peak memory [0-9.]+ [KMG]?B/peak memory/; s/[0-9.]+ s\b/s/g; s/\b(open|statistics|histogram|code|trace norm|write) [0-9.]+/\1/g'; }
awk -v begin="$begin" -v end="$end" '$0 == end { on = 0 } on { print } $0 == begin { on = 1 }' "$page" | steady >"$dir/there"
if [ ! -s "$dir/there" ] || ! steady <"$dir/new" | diff "$dir/there" - >"$dir/diff"; then
    echo "the transcript in $page (<) is not what the commands print (>); tests/transcript.sh write puts it there"
    cat "$dir/diff"
    exit 1
fi
