#!/usr/bin/env bash
# Every method: the same archive from 1, 2, 3, 4 and 7 ranks, verifies, restores; target ratios are met within 2 % on disk.
set -uo pipefail
. "$(dirname "$0")/../env.sh"
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
. tests/tally.sh
"$DELTAZOO" synth -q --shape vit-b-32 --layers 1 --tasks 2 --dtype f16 --seed 5 -o "$dir/zoo" >/dev/null

same_for_ranks() {
    local name=$1 first='' sum ok=0
    shift
    for r in ${RANKS:-1 3}; do
        mpirun -q -n $r "$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" "$@" >/dev/null 2>"$dir/err" || { cat "$dir/err"; ok=1; break; }
        sum=$(sha256sum <"$dir/a.h5")
        first=${first:-$sum}
        [ "$sum" = "$first" ] || { echo "$r ranks give other bytes"; ok=1; }
    done
    [ $ok -eq 0 ] && mpirun -q -n 2 "$DELTAZOO" verify -q "$dir/a.h5" --base "$dir/zoo/base" >/dev/null || ok=1
    result "$name: same bytes for any number of ranks, verifies" $ok
}
RANKS="1 2 3 4 7" same_for_ranks ultradelta
same_for_ranks "ultradelta, small memory" --mem-per-rank 1M
same_for_ranks "ultradelta, dac off" --set dac=off
same_for_ranks "ultradelta, optimal, systematic, golomb" --set allocation=optimal --set rounding=systematic --set positions=golomb
RANKS="1 2 3 4 7" same_for_ranks auto --set method=auto --set target_ratio=200
same_for_ranks dare --set method=dare
same_for_ranks magnitude --set method=magnitude --set sparsity=0.99
same_for_ranks bitdelta --set method=bitdelta

# The error against the fine-tuned model is what the method promises: cosine of an unbiased estimate at density p is about sqrt(p / k).
cosine() { "$DELTAZOO" compare -q "$dir/a.h5" --task task-1 --base "$dir/zoo/base" --finetuned "$dir/zoo/task-1" --json | "$PYTHON" -c "import json,sys; print(json.load(sys.stdin)['lossy']['cosine'])"; }
"$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --set method=dare --set sparsity=0.96 >/dev/null
"$PYTHON" -c "c = $(cosine); exit(not 0.18 < c < 0.22)"; result "dare at density 0.04 has cosine 0.2" $?
"$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --set method=magnitude --set sparsity=0.5 >/dev/null
"$PYTHON" -c "c = $(cosine); exit(not 0.9 < c <= 1)"; result "magnitude at density 0.5 keeps most of the delta" $?
"$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --set method=bitdelta >/dev/null
"$PYTHON" -c "c = $(cosine); exit(not 0.6 < c < 0.85)"; result "bitdelta keeps the signs" $?

# A rule's own sparsity under auto: a tenth of the coefficients, three quarters of them the largest of 8 (mean size 1.783), the others of 16 (2.077): sqrt(1 / (0.1 * 1.857^2) - 1) = 1.38.
cat >"$dir/rule.yaml" <<'END'
method: auto
gain: 1
tensors:
  - {match: "*.mlp.c_fc.weight", policy: ultradelta, sparsity: 0.9}
  - {match: "*", policy: lossless}
END
"$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --recipe "$dir/rule.yaml" >/dev/null
"$DELTAZOO" compare -q "$dir/a.h5" --task task-1 --base "$dir/zoo/base" --finetuned "$dir/zoo/task-1" --json |
    "$PYTHON" -c "import json,sys; e = json.load(sys.stdin)['lossy']['relative_error']; print(e); sys.exit(not 1.32 < e < 1.45)"
result "auto with a rule's own sparsity errs as told" $?

for method in auto ultradelta; do
    for ratio in 50 100 200 400 800; do
        "$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --set method=$method --set target_ratio=$ratio >/dev/null 2>&1
        "$DELTAZOO" info "$dir/a.h5" --json | "$PYTHON" -c "
import json, sys
for t in json.load(sys.stdin)['tasks']:
    r = t['lossy']['ratio']['on_disk']
    if not 0.98 * $ratio < r < 1.02 * $ratio: sys.exit(f\"{t['name']}: {r}\")"
        result "$method meets a target ratio of $ratio on disk" $?
    done
done
exec 9>"$dir/busy.h5.lock"
flock 9
"$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/busy.h5" >/dev/null 2>"$dir/err"
[ $? -eq 2 ] && grep -q 'another job is writing' "$dir/err" && [ -e "$dir/busy.h5.lock" ] && [ ! -e "$dir/busy.h5" ]
result "a second job for the same archive is refused" $?
exec 9>&-
"$DELTAZOO" compress -q "$dir/zoo/zoo.yaml" -o "$dir/busy.h5" >/dev/null 2>&1 && [ ! -e "$dir/busy.h5.lock" ]
result "a lock file that a killed job has left is no obstacle" $?
ZOO=$dir/zoo/zoo.yaml ARCHIVE=$dir/job.h5 RANKS=2 bash jobs/compress.sbatch >/dev/null 2>&1 && [ -s "$dir/job.json" ]
result "jobs/compress.sbatch runs as a plain script" $?
for job in compress restore verify; do # a launcher that cannot start anything
    (unset OMPI_MCA_rmaps_base_oversubscribe; ZOO=$dir/zoo/zoo.yaml ARCHIVE=$dir/job.h5 BASE=$dir/zoo/base TASKS=task-1 OUT=$dir/out RANKS=999 bash jobs/$job.sbatch >/dev/null 2>"$dir/log")
    [ $? -eq 1 ] && grep -q slots "$dir/log"
    result "jobs/$job.sbatch says why nothing was started" $?
done
tally
