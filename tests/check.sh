#!/usr/bin/env bash
# Runs the tests: check.sh [SET]...: all (by default), unit, slurm, mpich, serial. The last line reads "N passed, N failed".
set -uo pipefail
. "$(dirname "$0")/env.sh"
sets=" ${*:-all} "
wants() { case $sets in *" $1 "*) return 0 ;; *) return 1 ;; esac; }
passed=0 failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# A suite prints its own results and ends in "N passed, N failed", or is one test by its exit code.
suite() {
    local name=$1 begun=$SECONDS rc=0
    shift
    "$@" >"$log" 2>&1 || rc=$?
    local tail
    tail=$(grep -E '^[0-9]+ passed, [0-9]+ failed' "$log" | tail -n 1)
    if [ -n "$tail" ]; then
        local p f
        p=$(echo "$tail" | sed -E 's/^([0-9]+) passed.*/\1/')
        f=$(echo "$tail" | sed -E 's/.* ([0-9]+) failed.*/\1/')
        [ "$rc" -ne 0 ] && [ "$f" -eq 0 ] && f=1
    else
        p=$((rc == 0)) f=$((rc != 0))
    fi
    passed=$((passed + p)) failed=$((failed + f))
    printf '%-28s %4d passed %3d failed  %4d s%s\n' "$name" "$p" "$f" $((SECONDS - begun)) "$(sed -n 's/^skipped: /  skipped: /p' "$log" | head -n 1)"
    if [ "$f" -ne 0 ]; then
        grep -vE '^(ok |\[ +OK|\[ RUN)' "$log" | tail -n 60 | sed 's/^/    /'
    fi
}

cmocka() {
    local out rc=0
    out=$("$@" 2>&1) || rc=$?
    echo "$out"
    echo "$(echo "$out" | grep -c '^\[       OK \]') passed, $(echo "$out" | grep -c '^\[  FAILED  \] test_' | awk '{print ($1 > 0) ? $1 / 2 : 0}' | cut -d. -f1) failed"
    return $rc
}

units() { # flavour, prefix of the name
    local t
    for t in build/"$1"/unit/test_*; do
        case $t in *.d) continue ;; esac
        suite "${2:-}unit/$(basename "$t")" cmocka "$t"
    done
}

if wants all; then suite layers tests/layers.sh; fi
if wants all || wants unit; then units "$FLAVOUR"; fi
if wants all; then
    if command -v clang-format >/dev/null; then suite format make --no-print-directory lint; fi
    for t in tests/mpi/*.sh tests/reader/test_*.sh tests/torch/test_*.sh tests/flips/test_*.sh tests/fuzz/test_*.sh; do
        [ -e "$t" ] && suite "${t#tests/}" bash "$t"
    done
    if [ "$FLAVOUR" = release ]; then # a sanitizer's library wants a sanitizer's program around it
        suite install/run.sh tests/install/run.sh
        suite transcript tests/transcript.sh
    fi
    [ -x build/fault/deltazoo ] && suite crash "$PYTHON" tests/crash/run.py --quick
    for t in build/"$FLAVOUR"/fuzz/*; do # regressions and the useful part of the corpora
        if [ -x "$t" ] && [ -d "tests/broken/${t##*/}" ]; then suite "broken/${t##*/}" "$t" "tests/broken/${t##*/}"; fi
    done
    suite cli "$PYTHON" -m pytest tests/cli -n "${DZ_TEST_JOBS:-$((2 * $(nproc)))}" --junitxml=build/junit.xml
    suite paper/config "$PYTHON" tests/paper/test_config.py
    [ "$FLAVOUR" = release ] && suite paper/rows "$PYTHON" tests/paper/run.py --rows cheap --check # the committed table against what the program gives
fi
if wants mpich; then
    units mpich mpich/
    suite mpich tests/mpich/run.sh
fi
if wants serial; then suite serial tests/serial/run.sh; fi
if wants slurm; then
    suite slurm "$PYTHON" tests/slurm/run.py
    suite slurm/two_hosts tests/slurm/two_hosts.sh
fi
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
