#!/usr/bin/env bash
# PyTorch checkpoints saved by the real torch go in, are compressed on three ranks, and come back as torch has them. DELTAZOO: the program.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../env.sh"
deltazoo=$(realpath "$DELTAZOO")
if ! "$PYTHON" -c 'import torch' 2>/dev/null; then
    echo "note: no torch for $PYTHON (apt-get install python3-torch): nothing is tested"
    echo "0 passed, 0 failed"
    exit 0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0

report() { # report NAME STATUS LOG
    if [ "$2" = 0 ]; then
        echo "ok $1"
        passed=$((passed + 1))
    else
        echo "FAIL $1"
        sed 's/^/    /' "$3"
        failed=$((failed + 1))
    fi
}

check() { # check NAME COMMAND...: it must succeed
    local name=$1 status=0
    shift
    "$@" >"$work/log" 2>&1 || status=$?
    report "$name" "$status" "$work/log"
}

ranks() { # ranks N COMMAND...
    local n=$1
    shift
    timeout 120 mpirun -q -n "$n" "$deltazoo" "$@"
}

torch_says() { timeout 120 "$PYTHON" "$here/torch_files.py" "$@"; }

compress() { # compress ZOO [OPTION...]: the notes stay in ZOO.notes
    local zoo=$1
    shift
    ranks 3 compress "$zoo.yaml" -o "$zoo.h5" --force -q "$@" >"$zoo.notes" 2>&1 || { cat "$zoo.notes"; return 1; }
}

restore() { # restore ZOO TASK BASE: into ZOO.TASK
    rm -rf "$1.$2"
    ranks 3 restore "$1.h5" --task "$2" --base "$3" -o "$1.$2" -q
}

exact() { # exact ZOO TASK BASE FILE...: restored bit for bit
    restore "$1" "$2" "$3" && torch_says same "${@:4}" "$1.$2"
}

says() { grep -qF -- "$2" "$1" || { echo "$1 does not say: $2"; cat "$1"; return 1; }; }

says_not() { ! says "$@" >/dev/null || { echo "$1 says: $2"; cat "$1"; return 1; }; }

refuses() { # refuses NAME TEXT: exit 1, the text, no archive
    local status=0 good=0
    ranks 3 compress "$1.yaml" -o "$1.h5" --recipe lossless -q >"$1.log" 2>&1 || status=$?
    if [ "$status" != 1 ] || [ -e "$1.h5" ] || [ -e "$1.h5.partial" ]; then good=1; fi
    says "$1.log" "$2" >>"$1.log" || good=1
    [ "$(grep -c "$1" "$1.log")" = 1 ] || good=1
    report "refuses-$1" "$good" "$1.log"
}

torch_says make "$work/zoo" >"$work/log" 2>&1 || { cat "$work/log"; echo "0 passed, 1 failed"; exit 1; }
cd "$work/zoo"

check lossless compress files --recipe lossless
check notes says files.notes "task 'two': nested.pt: 'epoch' (an int) is not kept"
check notes-dict says files.notes "task 'two': nested.pt: 'args' (a dict of 1) is not kept"
check notes-tied says files.notes "task 'one': task.bin: 'embed.weight' and 'lm_head.weight' are one tensor: two are restored"
check restores exact files one base.bin task.bin
check restores-nested exact files two base.bin nested.pt
check restores-by-other-base exact files one base.safetensors task.bin
check verify ranks 3 verify files.h5 --base base.bin
check compare ranks 3 compare files.h5 --task one --base base.bin --finetuned task.bin
cp files.h5 three.h5
check one-rank ranks 1 compress files.yaml -o files.h5 --force -q --recipe lossless
check same-archive cmp files.h5 three.h5

check lossy compress files --recipe lossy.yaml
check lossy-safetensors compress safetensors --recipe lossy.yaml
check lossy-restores restore files one base.bin
check lossy-restores-safetensors restore safetensors one base.safetensors
check lossy-as-from-safetensors torch_says alike files.one safetensors.one task.bin 'layers.*.weight'

check export ranks 1 export files.h5 --task one -o vector.safetensors -q
check import ranks 3 import vector.safetensors --base base.bin -o onto.bin -q
check import-safetensors ranks 3 import vector.safetensors --base base.safetensors -o onto.safetensors -q
check import-onto-torch torch_says alike onto.bin onto.safetensors base.bin 'layers.*.weight'

check mixed compress mixed --recipe lossless
check mixed-restores exact mixed one base.safetensors task.bin
check protocols compress protocols --recipe lossless
check protocols-note says protocols.notes "task 'p4': protocol-4.pth: 'steps' (a tensor) is not kept"
for p in 3 4 5; do check protocol-$p exact protocols p$p base.bin protocol-$p.pth; done

check names compress names --recipe lossless
check names-ema says names.notes "'params' (a dict of 21 with 21 tensors) is not kept: 'params_ema' is"
check names-deep says names.notes "'model/epoch' (an int) is not kept"
check names-beside says names.notes "'optimizer' (a dict of 2 with 2 tensors) is not kept"
for t in ema deep beside module; do check names-$t exact names $t base.bin $t.pth; done

check strided compress strided --recipe lossless
check strided-restores exact strided one strided-base.bin strided.bin
check strided-restores-by-plain exact strided one plain-base.safetensors strided.bin
check strided-tied says strided.notes "'bytes' and 'tied' are one tensor"
check strided-not-tied says_not strided.notes "rows.weight"
check strided-verify ranks 3 verify strided.h5 --base strided-base.bin
check strided-compare ranks 3 compare strided.h5 --task one --base strided-base.bin --finetuned strided.bin
check strided-lossy compress strided --recipe lossy.yaml
cp strided.h5 three.h5
check strided-one-rank ranks 1 compress strided.yaml -o strided.h5 --force -q --recipe lossy.yaml
check strided-same-archive cmp strided.h5 three.h5
check strided-lossy-restores restore strided one strided-base.bin
check plain-lossy compress plain --recipe lossy.yaml
check plain-lossy-restores restore plain one plain-base.safetensors
check strided-as-plain torch_says alike strided.one plain.one strided.bin 'layers.*.weight'

check hub compress hub --recipe lossless
check hub-restores exact hub one hub-base hub-task/pytorch_model.bin
check hub-config cmp hub-task/config.json hub.one/config.json
check hub-listing test "$(ls hub.one | tr '\n' ' ')" = "config.json model.safetensors "

check shards compress shards --recipe lossless
check shards-restores exact shards one shards-base shards-task/pytorch_model-0000{1,2}-of-00002.bin
check shards-index torch_says index shards.one
check shards-others says shards.notes "training_args.bin is not kept"
check both compress both --recipe lossless
check both-restores exact both two base.bin nested.pt
check both-note says both.notes "pytorch_model.bin is not kept"

refuses expanded "tensor 'q': expanded from 4 to 4398046511104 bytes"
refuses evil "data.pkl: global 'posix.system' is not allowed"
refuses evil-deep "data.pkl: global 'posix.system' is not allowed"
check executed-nothing test ! -e executed
refuses quantized "data.pkl: global 'torch._utils._rebuild_qtensor' is not allowed"
refuses sparse "data.pkl: global 'torch._utils._rebuild_sparse_tensor' is not allowed"
refuses complex "data.pkl: global 'torch.ComplexDoubleStorage' is not allowed"
refuses module "data.pkl: global 'torch.nn.modules.linear.Linear' is not allowed"
refuses script "data.pkl: global '__torch__.torch.nn.modules.linear.Linear' is not allowed"
refuses list "data.pkl: holds a list, not a dict of tensors"
refuses empty "(or under two of these); it holds 'epoch' (an int)"
refuses legacy "files of torch before 1.6 must be saved again"
refuses compressed "is compressed (method 8): only stored ones are read"
refuses cut-end "not a zip file, or cut short"
refuses cut-half "not a zip file, or cut short"
refuses shard-missing "shard pytorch_model-00002-of-00002.bin is missing"
refuses index-outside "'../task.bin', which is not a .bin file of this directory"
refuses index-wrong "tensor 'embed.weight' is in pytorch_model-00001-of-00002.bin, not in pytorch_model-00002-of-00002.bin"
refuses index-short "tensor 'q' of pytorch_model-00001-of-00002.bin is missing from the index"
refuses index-other "tensor 'extra' is not in pytorch_model-00002-of-00002.bin"

echo "$passed passed, $failed failed"
[ "$failed" = 0 ]
