#!/usr/bin/env bash
# Runs fuzz targets: run.sh TARGET..., each for $T seconds (default 60), two at a time at most ($FUZZ_JOBS). Inputs grow in build/fuzz/corpus/TARGET, from
# the seeds and tests/broken/TARGET; what crashes a target goes to build/fuzz/crashes/TARGET. Prints a table; FUZZ_REPORT=1 also writes results/fuzz.md.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
PYTHON=$PWD/build/venv/bin/python # venv.sh
T=${T:-60} jobs=${FUZZ_JOBS:-2} box=$PWD/build/fuzz
targets=("$@")
export ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1:handle_abort=1:quarantine_size_mb=16 UBSAN_OPTIONS=print_stacktrace=1
export LSAN_OPTIONS=suppressions=$PWD/tests/fuzz/lsan.supp:print_suppressions=0 HDF5_PLUGIN_PRELOAD=::
for t in "${targets[@]}"; do mkdir -p "$box/corpus/$t" "$box/seeds/$t" "$box/crashes/$t" "tests/broken/$t"; done
mkdir -p "$box"/seeds/{lossless,kept,safetensors,torch,yaml,archive}
if [ -z "$(ls "$box/seeds/lossless")" ]; then
    "$box/fuzz_seeds" "$box/seeds"
    "$PYTHON" tests/fuzz/seeds.py "$box/seeds"
fi

one() { # TARGET
    local t=$1
    "$box/fuzz/$t" -max_total_time="$T" -timeout=120 -report_slow_units=60 -rss_limit_mb=4096 -malloc_limit_mb=2048 -print_final_stats=1 -max_len=65536 -reload=0 \
        $([ -e "tests/fuzz/$t.dict" ] && echo "-dict=tests/fuzz/$t.dict") -artifact_prefix="$box/crashes/$t/" "$box/corpus/$t" "$box/seeds/$t" "tests/broken/$t" >"$box/$t.log" 2>&1 || true
}
row() { # LOG: what libFuzzer says in it
    local t execs secs cov
    t=$(basename "$1" .log)
    execs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$1")
    secs=$(sed -n 's/^Done [0-9]* runs in \([0-9]*\) second.*/\1/p' "$1")
    cov=$(grep -oE ' cov: [0-9]+' "$1" | tail -n 1 | grep -oE '[0-9]+' || echo 0)
    printf '| %s | %s | %s | %s | %s | %s | %s |\n' "$t" "${secs:-stopped}" "${execs:-0}" $((${execs:-0} / ${secs:-1})) "$cov" "$(ls "$box/corpus/$t" | wc -l)" \
        "$(ls "$box/crashes/$t" | wc -l)"
}
for t in "${targets[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    one "$t" &
done
wait
{
    echo '| target | seconds | executions | executions/s | edges covered | corpus files | crashes |'
    echo '|---|---|---|---|---|---|---|'
    for log in "$box"/*.log; do row "$log"; done
} | tee "$box/table.md"
if [ -n "${FUZZ_REPORT:-}" ]; then
    {
        printf '# Fuzzing\n\n`make fuzz T=%s FUZZ_REPORT=1`: libFuzzer (%s) with ASan and UBSan, seconds of wall clock' \
            "$T" "$(clang --version | sed -n 's/.*version \([0-9.]*\).*/clang \1/p')"
        printf ' (%s,\nload %s at the end: on a machine shared with other work a target gets only a part of a core).\nInputs end at a page without access, so that libraries built without sanitizers are watched too.' \
            "$(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)" "$(cut -d' ' -f1 /proc/loadavg)"
        printf ' A run starts from the\ninputs that earlier ones found (build/fuzz/corpus) and from tests/broken.\n\n'
        cat "$box/table.md"
    } >results/fuzz.md
fi
[ "$(find "$box/crashes" -type f | wc -l)" -eq 0 ]
