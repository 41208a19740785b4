#!/usr/bin/env bash
# Ratios on disk of synthetic zoos, every byte counted, beside the paper's two ways of counting. Writes results/ratios.md.
set -euo pipefail
. "$(dirname "$0")/../env.sh"
out=results/ratios.md
dir=$(mktemp -d "${TMPDIR:-/tmp}/deltazoo-ratios.XXXXXX")
trap 'rm -rf "$dir"' EXIT
{
    echo "# Ratios on disk"
    echo
    echo 'Command: `tests/bench/ratios.sh`. Two tasks, 2 ranks, 4 bits, seed 42, step min(0.003, (1 - s)/3). `lossy`: bytes of the lossy tensors in their files / bytes they'
    echo 'really take (blocks, checksums, index rows, the task'"'"'s HDF5 structures). `whole`: the same for all tensors of a task, exact ones included. `over entropy`:'
    echo 'stored bytes of the lossy tensors over kept values times the entropy of their levels. The last two columns count as the paper'"'"'s first and final versions do.'
    echo
    echo "| model | delta | sparsity | lossy | whole | over entropy | value bits only | positions coded |"
    echo "|---|---|---|---|---|---|---|---|"
} >"$dir/table"
for spec in "vit-b-32 0 f16" "roberta-base 0 f16" "llama2-7b 1 bf16"; do
    read -r shape layers dtype <<<"$spec"
    for tails in gauss t; do
        rm -rf "$dir/zoo"
        mpirun -n 2 "$DELTAZOO" synth -q --shape "$shape" --layers "$layers" --tasks 2 --dtype "$dtype" --tails "$tails" --seed 11 -o "$dir/zoo" >/dev/null
        for s in 0.90 0.97 0.99 0.995; do
            step=$("$PYTHON" -c "print(min(0.003, (1 - $s) / 3))")
            mpirun -n 2 "$DELTAZOO" compress -q --force "$dir/zoo/zoo.yaml" -o "$dir/a.h5" --set sparsity=$s --set step="$step" >/dev/null 2>&1
            "$DELTAZOO" info "$dir/a.h5" --json | "$PYTHON" -c "
import json, sys
t = json.load(sys.stdin)['tasks']
m = lambda f: sum(map(f, t)) / len(t)
l = lambda k: m(lambda x: x['lossy']['ratio'][k])
print('| $shape' + (' ($layers layer)' if $layers else '') + ' $dtype | $tails | $s | %.1f | %.1f | %.3f | %.1f | %.1f |' % (l('on_disk'), m(lambda x: x['ratio']['on_disk']),
      m(lambda x: x['lossy']['stored_bytes'] / x['lossy']['entropy_bytes']), l('value_bits'), l('positions_coded')))" >>"$dir/table"
        done
    done
done
{
    echo
    echo 'gauss: normal deltas, the hardest to code. t: Student-t, df 4 to 8, layer-dependent scale, a rank-8 part with 30 % of the energy. Heavy tails stretch the'
    echo 'min-max grid, so most values fall on few levels: that codes to very little and also says very little. A high ratio of such a zoo is not a better model;'
    echo '`deltazoo compare` shows the error, and trained models decide (results/quality.md).'
} >>"$dir/table"
cp "$dir/table" "$out"
cat "$out"
