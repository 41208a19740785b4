#!/usr/bin/env bash
# check-installed: tests an installed deltazoo, without its source. Its program makes, verifies and restores an archive, on one rank and under the
# launcher; a program is compiled with its library; the Python reader reads the archive, if this Python has what it needs. Installed as
# PREFIX/share/deltazoo/check-installed; `make check-installed` runs it. DESTDIR, PREFIX, LIBDIR: those of `make install`. LAUNCH: mpirun. CC, PYTHON, PKG: pkg-config. RUN: what
# runs a program of another machine, as in the Makefile.
# The last line reads "N passed, N failed"; two hashes are printed too: that of the archives (one of each way to code, a chain, a stored base) is the same on
# every machine with the same release of zstd, zlib and major version of HDF5, whatever MPI, compiler and processor; that of the restored tensors is always the same.
set -uf
prefix=${PREFIX:-@PREFIX@} libdir=${LIBDIR:-@LIBDIR@} root=${DESTDIR:-} # `make install` writes them here
share=$root$prefix/share/deltazoo program=$root$prefix/bin/deltazoo
# shellcheck disable=SC2206 # RUN is words
run=(${RUN:-}) dz=(${RUN:-} "$program")
launch=${LAUNCH:-mpirun}
passed=0 failed=0 skipped=0
work=$(mktemp -d) || exit 1
trap 'rm -rf "$work"' EXIT
cd "$work" || exit 1
export OPENBLAS_NUM_THREADS=1
# On a small machine, for Open MPI 4 and 5; also as root, of a package's clean machine.
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 PRTE_ALLOW_RUN_AS_ROOT=1 PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 PRTE_MCA_rmaps_default_mapping_policy=:oversubscribe

# try "what" command ...
try() {
    local what=$1
    shift
    if "$@" >out 2>&1 </dev/null; then
        passed=$((passed + 1))
    else
        failed=$((failed + 1))
        echo "failed: $what: $*"
        tail -n 5 out | sed 's/^/    /'
    fi
}
skip() { skipped=$((skipped + 1)); echo "skipped: $1"; }
there() { local f; for f; do [ -e "$root$f" ] || [ -e "$root$f.gz" ] || { echo "$root$f is not there"; return 1; }; done; }
hash() { sha256sum "$1" | cut -d' ' -f1; }
same_hash() { [ -s "$1" ] && [ "$(hash "$1")" = "$(hash "$2")" ]; }

try "files" there "$prefix/bin/deltazoo" "$prefix/share/man/man1/deltazoo.1" "$prefix/share/man/man1/deltazoo-compress.1" "$prefix/share/bash-completion/completions/deltazoo" \
    "$prefix/share/deltazoo/jobs/common.sh" "$prefix/share/deltazoo/config/zoo.yaml"
try "version" "${dz[@]}" --version
version=$("${dz[@]}" --version 2>/dev/null | sed 's/^deltazoo //')
files_of_library() { there "$libdir/libdeltazoo.so" "$libdir/libdeltazoo.a"; }
version_of_library() { grep -qx "Version: $version" "$root$libdir/pkgconfig/deltazoo.pc" && [ -e "$root$libdir/libdeltazoo.so.$version" ]; }
try "job scripts are bash" bash -n "$share/jobs/compress.sbatch" "$share/jobs/common.sh"

# One rank.
try "synth" "${dz[@]}" synth -q --shape tiny --tasks 2 --dtype bf16 --seed 3 -o zoo
try "compress" "${dz[@]}" compress -q zoo/zoo.yaml -o one.h5
try "compress, lossless" "${dz[@]}" compress -q zoo/zoo.yaml -o exact.h5 --recipe lossless
try "compress at a ratio of 8" "${dz[@]}" compress -q zoo/zoo.yaml -o rate.h5 --target-ratio 8
try "compress by UltraDelta" "${dz[@]}" compress -q zoo/zoo.yaml -o drop.h5 --recipe ultradelta
printf '%s\n' 'base: base' 'tasks:' '  - {name: task-1, path: task-1}' '  - {name: task-2, path: task-2, parent: task-1}' >zoo/chain.yaml 2>/dev/null
try "compress a chain with its base" "${dz[@]}" compress -q zoo/chain.yaml -o chain.h5 --recipe lossless --with-base
try "restore a child without any other file" "${dz[@]}" restore -q chain.h5 --task task-2 -o child
try "a child comes back bit for bit" same_hash child/model.safetensors zoo/task-2/model.safetensors
try "verify" "${dz[@]}" verify -q one.h5 --base zoo/base
try "restore" "${dz[@]}" restore -q exact.h5 --task task-1 --base zoo/base -o restored
try "a lossless model comes back bit for bit" same_hash restored/model.safetensors zoo/task-1/model.safetensors
try "compare" "${dz[@]}" compare one.h5 --task task-1 --base zoo/base --finetuned zoo/task-1
damaged() {
    printf 'xxxx' | dd of=bad.h5 bs=1 seek=$(($(wc -c <bad.h5) / 2)) conv=notrunc status=none
    "${dz[@]}" verify -q bad.h5
    [ $? -eq 3 ]
}
cp -f one.h5 bad.h5 2>/dev/null
try "damage is found, exit code 3" damaged

# Ranks.
linked() { ldd "$program" 2>/dev/null | grep -qE 'libmpi|libmpich|libpmpi'; }
if [ -n "${RUN:-}" ]; then
    skip "ranks: the program is of another machine"
elif ! linked; then
    skip "ranks: this program is built without MPI"
elif ! command -v "${launch%% *}" >/dev/null; then
    skip "ranks: there is no ${launch%% *} (LAUNCH names it)"
else
    # shellcheck disable=SC2086 # LAUNCH is words
    try "compress on 3 ranks" $launch -n 3 "$program" compress -q zoo/zoo.yaml -o three.h5
    try "the same bytes from 1 and 3 ranks" same_hash one.h5 three.h5
    # shellcheck disable=SC2086
    try "verify on 2 ranks" $launch -n 2 "$program" verify -q three.h5 --base zoo/base
fi

# The library.
name=model.layers.0.self_attn.q_proj.weight
flags() { PKG_CONFIG_PATH=$root$libdir/pkgconfig "${PKG:-pkg-config}" --define-variable=prefix="$root$prefix" "$@" deltazoo; }
if [ ! -e "$root$prefix/include/deltazoo.h" ]; then
    skip "library: it is not installed for development"
elif ! command -v "${PKG:-pkg-config}" >/dev/null || ! command -v "${CC:-cc}" >/dev/null; then
    skip "library: there is no ${PKG:-pkg-config} or ${CC:-cc}"
else
    try "files of the library" files_of_library
    try "the library has the program's version" version_of_library
    # shellcheck disable=SC2046
    try "a program is compiled with the library" "${CC:-cc}" -std=c11 "$share/example.c" $(flags --cflags --libs) "-Wl,-rpath,$root$libdir" -o example
    try "it reads the archive" "${run[@]}" ./example one.h5 task-2 "$name" zoo/base
fi

# Python.
export PYTHONPATH=$share/python/src PYTHONDONTWRITEBYTECODE=1 # or where a package has put it
if ! "${PYTHON:-python3}" -c 'import deltazoo.pure' >/dev/null 2>&1; then
    skip "Python reader: ${PYTHON:-python3} lacks it, numpy, h5py, xxhash or zstandard"
else
    try "restore with the program" "${dz[@]}" restore -q one.h5 --task task-2 --base zoo/base -o mine
    try "restore with the Python reader" "${PYTHON:-python3}" -m deltazoo restore one.h5 --task task-2 --base zoo/base -o theirs
    try "both give the same bytes" same_hash mine/model.safetensors theirs/model.safetensors
fi
tensors() { # of each archive, without the file's header, which names the archive and its date
    local a
    for a; do
        rm -rf lossy
        "${dz[@]}" restore -q "$a.h5" --task task-1 --base zoo/base -o lossy >/dev/null 2>&1 || return
        tail -c +"$(($(od -An -t u8 -N 8 lossy/model.safetensors) + 9))" lossy/model.safetensors
    done
}
if [ $failed -eq 0 ]; then
    echo "archives of deltazoo $version, with zstd $("${dz[@]}" doctor | sed -n 's/^zstd *//p'): $(cat one.h5 exact.h5 rate.h5 drop.h5 chain.h5 | sha256sum | cut -d' ' -f1)"
    echo "restored tensors: $(tensors one rate drop | sha256sum | cut -d' ' -f1)"
fi
echo "$passed passed, $failed failed$([ $skipped -eq 0 ] || echo ", $skipped skipped")"
[ $failed -eq 0 ]
