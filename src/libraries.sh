#!/bin/sh
# Are the libraries there, and recent enough? For each, a few lines are compiled and linked as the program will be. Prints a line for each; what is missing
# goes to stderr, all at once, with the names of its packages. Called by the Makefile, which sets CC, CPPFLAGS, LDFLAGS and how each is linked.
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
bad=0

# library NAME "least version" "condition of the preprocessor" "link" "call" "Debian, RHEL (EPEL), Spack" header ...
library() {
    name=$1 least=$2 condition=$3 link=$4 call=$5 packages=$6
    shift 6
    {
        echo '#include <stddef.h>'
        echo '#include <stdio.h>'
        for header; do echo "#include <$header>"; done
        echo "#if !($condition)"
        echo '#error TOO_OLD'
        echo '#endif'
        echo "int main(void) { return (int)(size_t)($call); }"
    } >"$tmp/a.c"
    # shellcheck disable=SC2086 # flags are words
    if $CC -std=c11 -D_GNU_SOURCE -w $CPPFLAGS "$tmp/a.c" -o "$tmp/a" $LDFLAGS $link $LDFLAGS -lm >"$tmp/log" 2>&1; then
        echo "$name, at least $least: found"
        return
    fi
    bad=1
    if grep -q TOO_OLD "$tmp/log"; then
        why="too old: $least or later is needed"
    elif grep -qE 'No such file|file not found' "$tmp/log" && ! grep -qE 'cannot find|unable to find' "$tmp/log"; then # the linker's own words name no header
        why="not found ($(sed -nE "s/.*[ '](([A-Za-z0-9_]+\/)?[A-Za-z0-9_]+\.h)['; :].*/\1/p" "$tmp/log" | head -n 1)); $least or later is needed"
    else
        why="does not link ($link): $(grep -E 'cannot find|undefined|unable to find|error' "$tmp/log" | head -n 1)"
    fi
    echo "make: $name is $why" | sed "s/ is does not/ does not/" >&2
    echo "      $packages" >&2
    return 1
}

if ! command -v "${CC%% *}" >/dev/null; then
    echo "make: there is no compiler $CC: set CC" >&2
    exit 1
fi
if [ "$MPI" != no ]; then
    if ! command -v "${MPICC%% *}" >/dev/null; then
        echo "make: there is no $MPICC: load the MPI module, or set MPICC; without MPI: make SERIAL=1 FLAVOUR=serial" >&2
        echo "      Debian: libopenmpi-dev  RHEL: openmpi-devel  Spack: openmpi" >&2
        exit 1
    fi
    library MPI 3.0 'MPI_VERSION >= 3' "$MPI" 'MPI_Init(0, 0)' 'Debian: libopenmpi-dev  RHEL: openmpi-devel  Spack: openmpi (any MPI; MPICC names its wrapper)' mpi.h
fi
library HDF5 '1.10.5 (not 1.12.0)' '(H5_VERS_MAJOR > 1 || H5_VERSION_GE(1, 10, 5)) && !(H5_VERS_MAJOR == 1 && H5_VERS_MINOR == 12 && H5_VERS_RELEASE == 0)' "$HDF5" 'H5Pset_dset_no_attrs_hint' \
    'Debian: libhdf5-openmpi-dev  RHEL: hdf5-openmpi-devel  Spack: hdf5+mpi (or HDF5_PREFIX, HDF5_NAME: src/doc/building.md)' hdf5.h ||
    [ -z "${PKG:-}" ] || command -v "${PKG%% *}" >/dev/null || echo "      there is no $PKG, which says where HDF5 is: install it (Debian: pkgconf), or set HDF5_PREFIX" >&2
library jansson 2.10 'JANSSON_VERSION_HEX >= 0x020a00' -ljansson json_stringn 'Debian: libjansson-dev  RHEL: jansson-devel  Spack: jansson' jansson.h
library libyaml 0.1.7 1 -lyaml yaml_parser_load 'Debian: libyaml-dev  RHEL: libyaml-devel  Spack: libyaml' yaml.h
library uthash 2.0 'defined HASH_ADD_KEYPTR' '' 0 'Debian: uthash-dev  RHEL: uthash-devel  Spack: uthash' uthash.h
library xxHash 0.8.0 'XXH_VERSION_NUMBER >= 800' -lxxhash XXH3_64bits 'Debian: libxxhash-dev  RHEL: xxhash-devel  Spack: xxhash' xxhash.h
library zstd 1.4.0 'ZSTD_VERSION_NUMBER >= 10400' -lzstd ZSTD_getFrameContentSize 'Debian: libzstd-dev  RHEL: libzstd-devel  Spack: zstd' zstd.h
library zlib 1.2.7 'ZLIB_VERNUM >= 0x1270' -lz crc32 'Debian: zlib1g-dev  RHEL: zlib-devel  Spack: zlib-api' zlib.h
library htscodecs 1.3.0 'HTSCODECS_VERSION >= 100300' -lhtscodecs rans_compress_to_4x16 \
    'Debian: libhtscodecs-dev  RHEL, Spack, EasyBuild, conda-forge: none; see config/packages/README.md' htscodecs/htscodecs.h htscodecs/rANS_static4x16.h
if [ "$BLAS" = no ]; then # the Python package's library: nothing in it calls LAPACK
    :
elif [ -n "$MKL" ]; then
    library 'LAPACK of MKL' 2018 1 "$BLAS" LAPACKE_dgesdd 'Spack: intel-oneapi-mkl (MKLROOT names its folder)' mkl_lapacke.h
else
    library LAPACKE 3.0 1 "$BLAS" LAPACKE_dgesdd 'Debian: liblapacke-dev libopenblas-dev  RHEL: lapack-devel openblas-devel  Spack: openblas (BLAS_LIBS names it)' lapacke.h
fi
[ $bad -eq 0 ] || echo "make: other folders: CPPFLAGS=-I... LDFLAGS='-L... -Wl,-rpath,...'; src/doc/building.md" >&2
exit $bad
