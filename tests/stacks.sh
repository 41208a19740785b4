#!/usr/bin/env bash
# tests/stacks.sh [ROW ...]: the table of stacks in src/doc/building.md. For each row (all by default) this source is built and installed, the unit tests and
# check-installed are run, and the archives of zoos/ (tests/reader/edge_zoo.py, `synth`) are made; the table is kept in build/stacks. It fails if something fails, if restored tensors differ
# between two rows, or if archives differ between rows with the same release of zstd and the same major version of HDF5. Archives of tiles and channels have nothing that zstd
# packs (the column "tiles"): they differ by HDF5 alone.
# Rows of this system's suite are built here, others in a Debian of their own (tests/debian.sh: root, debootstrap). What was built is kept: a second run
# only builds what has changed.
set -euo pipefail
cd "$(dirname "$0")/.."
stacks=$PWD/build/stacks
MPICH="FLAVOUR=mpich MPICC=mpicc.mpich HDF5_NAME=hdf5-mpich" MPICH_PACKAGES="mpich libmpich-dev libhdf5-mpich-dev"
ARM64="make pkgconf gcc gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static uthash-dev"
for p in libc6 libhdf5 libopenblas liblapacke libjansson libyaml libxxhash libzstd zlib1g libhtscodecs libcmocka; do ARM64+=" $p-dev:arm64"; done
# name | root (a suite, or one with a root of its own) | packages | make's variables | launcher
rows="gcc-12 | bookworm | gcc-12 | CC=gcc-12 | mpirun.openmpi
gcc-11 | bookworm | gcc-11 | CC=gcc-11 | mpirun.openmpi
clang-14 | bookworm | clang-14 | CC=clang-14 | mpirun.openmpi
mpich-4.0 | bookworm | $MPICH_PACKAGES | CC=gcc-12 $MPICH | mpirun.mpich
serial-hdf5 | bookworm | libhdf5-dev | CC=gcc-12 HDF5_NAME=hdf5-serial | mpirun.openmpi
no-mpi | bookworm | libhdf5-dev | CC=gcc-12 SERIAL=1 FLAVOUR=serial |
gcc-14 | trixie | gcc-14 | CC=gcc-14 | mpirun.openmpi
clang-19 | trixie | clang-19 | CC=clang-19 | mpirun.openmpi
mpich-4.2 | trixie | gcc-13 $MPICH_PACKAGES | CC=gcc-13 $MPICH | mpirun.mpich
arm64 | trixie-arm64 | $ARM64 | CC=aarch64-linux-gnu-gcc PKG=aarch64-linux-gnu-pkg-config SERIAL=1 FLAVOUR=serial RUN=qemu-aarch64-static |
sid-openmpi | sid | | CC=gcc | mpirun.openmpi
sid-mpich | sid | $MPICH_PACKAGES | CC=gcc $MPICH | mpirun.mpich"

field() { awk -F ' *[|] *' -v name="$1" -v n="$2" '$1 == name { print $n }' <<<"$rows"; }

# One row, on this system.
row() {
    local name=$1 make="" launch unit passed=0 flavour=release run="" cc=gcc v words
    launch=$(field "$name" 5)
    read -ra words <<<"$(field "$name" 4)"
    for v in "${words[@]}"; do
        case $v in FLAVOUR=*) flavour=${v#*=} ;; RUN=*) run="${v#*=} -L /" ;; CC=*) cc=${v#*=} ;; esac
    done
    [ -z "$run" ] || words+=("RUN=$run")
    local at=$stacks/$name log=$stacks/$name.log
    mkdir -p "$at"
    find "$at" -mindepth 1 -maxdepth 1 ! -name build ! -name root -exec rm -rf {} +
    tar -c --exclude=./build --exclude=./.git . | tar -x -C "$at"
    cd "$at"
    rm -rf root
    make -j"$(nproc)" WERROR=1 "${words[@]}" all man units >"$log" 2>&1 </dev/null || { tail -n 5 "$log"; echo "$name: it does not build"; return 1; }
    for unit in build/"$flavour"/unit/test_*; do
        [ -x "$unit" ] && [ "${unit%.*}" = "$unit" ] || continue
        # shellcheck disable=SC2086 # words
        $run "$unit" >"$log" 2>&1 </dev/null || { grep -E 'FAILED|Error|error' "$log" | head -n 5; echo "$name: $unit fails"; return 1; }
        passed=$((passed + $(grep -cE '\[       OK \]' "$log")))
    done
    make "${words[@]}" DESTDIR="$at/root" PREFIX=/opt/deltazoo install >"$log" 2>&1 || { tail -n 5 "$log"; return 1; }
    LAUNCH=${launch:-none} make --no-print-directory "${words[@]}" DESTDIR="$at/root" PREFIX=/opt/deltazoo check-installed >"$at/installed" 2>&1 || { cat "$at/installed"; return 1; }
    tail -n 1 "$at/installed"
    # shellcheck disable=SC2206 # words
    dz=($run "$at/root/opt/deltazoo/bin/deltazoo")
    archives >"$at/archives" || return 1
    "${dz[@]}" doctor >"$log" 2>&1 || true
    fact() { sed -n -E "s/^$1 +//p" "$log" | head -n 1; }
    short() { sed -n -E "s/^$1.*: ([0-9a-f]{8})[0-9a-f]{56}$/\1/p" "$at/installed"; }
    part() { grep "$1" "$at/archives" | sha256sum | cut -c1-8; }
    local mpi
    mpi=$(fact MPI)
    case $mpi in *", "*) mpi=${mpi%%, *} ;; esac
    [ "$flavour" != serial ] || mpi=none
    echo "$name | $(. /etc/os-release && echo "$PRETTY_NAME" | sed 's/ GNU.Linux//; s/ (.*//'), $("$cc" -dumpmachine | cut -d- -f1) | $("$cc" --version | head -n 1 | sed -E 's/ \(.*\)//; s/^.*(gcc|clang)[^ ]*/\1/; s/^\w* version/clang/') | $mpi | $(fact HDF5) |" \
        "$(fact zstd) | $passed | $(short archives) | $(part '^archive') | $(part '^archive [tc]') | $(short restored) | $(part '^restored')" | sed 's/Open MPI v/Open MPI /' >"$stacks/$name.row"
}

# A line for each archive of the zoos, and for the tensors that come back from some.
archives() {
    local a zoo
    local out=$PWD/out
    rm -rf "$out" && mkdir "$out"
    make_one() { # archive zoo's-yaml options ...; in zoos/, since an archive has the name of its recipe
        (cd "$stacks/zoos" && "${dz[@]}" compress -q "$2" -o "$out/$1.h5" "${@:3}") >log 2>&1 </dev/null || { tail -n 3 log >&2; return 1; }
        echo "archive $1 $(sha256sum <"$out/$1.h5" | cut -c1-16)"
    }
    make_one bf16-lossless bf16/zoo.yaml --recipe lossless && make_one bf16 bf16/zoo.yaml && make_one bf16-chain bf16/chain.yaml --with-base &&
        make_one bf16-ratio bf16/zoo.yaml --target-ratio 8 && make_one f16-lossless f16/zoo.yaml --recipe lossless --with-base &&
        make_one f32-high f32/zoo.yaml --quality high && make_one channels channels/zoo.yaml && make_one channels-ratio channels/zoo.yaml --target-ratio 6 &&
        make_one values values/zoo.yaml --recipe values/recipe.yaml && make_one tiles tiles/zoo.yaml &&
        make_one tiles-lossless tiles/zoo.yaml --recipe lossless --with-base || return 1
    for a in bf16 bf16-chain f32-high channels values tiles tiles-lossless; do
        zoo=${a%%-*}
        "${dz[@]}" restore -q "out/$a.h5" --task task-1 --base "$stacks/zoos/$zoo/base" -o out/back >log 2>&1 || { tail -n 3 log >&2; return 1; }
        echo "restored $a $(tail -c +$(($(od -An -t u8 -N 8 out/back/model.safetensors) + 9)) out/back/model.safetensors | sha256sum | cut -c1-16)"
        [ "$a" != tiles-lossless ] || cmp out/back/model.safetensors "$stacks/zoos/tiles/task-1/model.safetensors" >&2 || return 1
        rm -rf out/back
    done
    rm -rf out
}

# The models, once for all systems.
zoos() {
    local python=python3 kind dtype
    [ ! -x build/venv/bin/python ] || python=build/venv/bin/python
    rm -rf "$stacks/zoos"
    for kind in tiles channels values; do "$python" tests/reader/edge_zoo.py $kind "$stacks/zoos/$kind"; done
    for dtype in bf16 f16 f32; do build/deltazoo synth -q --shape tiny --tasks 2 --dtype $dtype --seed 3 -o "$stacks/zoos/$dtype"; done >/dev/null
    printf '%s\n' 'base: base' 'tasks:' '  - {name: task-1, path: task-1}' '  - {name: task-2, path: task-2, parent: task-1}' >"$stacks/zoos/bf16/chain.yaml"
}

export DEBIAN_FRONTEND=noninteractive
if [ "${1:-}" = here ]; then # in a suite's own root: `here` PACKAGES -- ROW ...
    shift
    packages=()
    while [ "$1" != -- ]; do packages+=("$1"); shift; done
    shift
    [[ "${packages[*]}" == *:arm64* ]] && dpkg --add-architecture arm64 || tests/deps.sh tests
    if [ "$(dpkg-query -W -f '${db:Status-Status}\n' "${packages[@]}" 2>/dev/null | grep -cx installed)" -lt ${#packages[@]} ]; then
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    fi
    bad=0
    for name; do
        echo "== $name"
        (row "$name") || { bad=1; rm -f "$stacks/$name.row"; }
    done
    exit $bad
fi

mkdir -p "$stacks"
names=("$@")
[ $# -gt 0 ] || mapfile -t names < <(cut -d' ' -f1 <<<"$rows")
for name in "${names[@]}"; do [ -n "$(field "$name" 2)" ] || { echo "stacks: there is no row $name" >&2; exit 1; }; done
zoos
mine=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
bad=0
for suite in bookworm trixie trixie-arm64 sid; do
    packages="" of=()
    for name in "${names[@]}"; do [ "$(field "$name" 2)" != $suite ] || { of+=("$name"); packages+=" $(field "$name" 3)"; rm -f "$stacks/$name.row"; }; done
    [ ${#of[@]} -gt 0 ] || continue
    # shellcheck disable=SC2086 # words
    if [ $suite = "$mine" ]; then
        tests/stacks.sh here $packages -- "${of[@]}" || bad=1
    else
        there=build/debian-$suite/source/build/stacks
        mkdir -p "$there"
        rm -rf "$there/zoos"
        cp -al "$stacks/zoos" "$there/" 2>/dev/null || cp -a "$stacks/zoos" "$there/"
        ROOT=$suite tests/debian.sh "${suite%-*}" tests/stacks.sh here $packages -- "${of[@]}" || bad=1
        for name in "${of[@]}"; do cp "$there/$name.row" "$there/$name/archives" "$stacks/" 2>/dev/null && mv "$stacks/archives" "$stacks/$name.archives" || bad=1; done
    fi
done

{
    echo "| row | system | compiler | MPI | HDF5 | zstd | unit tests | installed | zoos | tiles | restored | |"
    echo "|---|---|---|---|---|---|---|---|---|---|---|---|"
    cut -d' ' -f1 <<<"$rows" | while read -r name; do [ ! -e "$stacks/$name.row" ] || sed 's/^/| /; s/$/ |/' "$stacks/$name.row"; done
} | tee "$stacks/table.md"
# Fields of a row: 6 HDF5, 7 zstd, 9 and 10 archives, 11 those without zstd, 12 and 13 restored tensors.
awk -F ' *[|] *' 'NR > 2 {
    split($6, v, "."); key = v[1] " " $7
    if (key in of && of[key] != $9 $10) { print "stacks: " $2 ": archives are not those of another row with the same zstd and HDF5"; bad = 1 }
    if (v[1] in tiles && tiles[v[1]] != $11) { print "stacks: " $2 ": archives without zstd are not those of another row with the same HDF5"; bad = 1 }
    if (back != "" && back != $12 $13) { print "stacks: " $2 ": restored tensors are not those of another row"; bad = 1 }
    of[key] = $9 $10; tiles[v[1]] = $11; back = $12 $13 } END { exit bad }' "$stacks/table.md" || bad=1
exit $bad
