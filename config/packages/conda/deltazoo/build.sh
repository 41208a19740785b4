#!/bin/bash
# CC, CFLAGS, CPPFLAGS and LDFLAGS are conda's.
set -euo pipefail
flags=(HDF5_PREFIX="$PREFIX" BLAS_LIBS="-llapacke -lblas")
if [ "$mpi" = nompi ]; then flags+=(SERIAL=1 FLAVOUR=serial); else flags+=(MPICC=mpicc); fi
# For another platform: manual pages are printed by the program itself, and Open MPI's wrapper of this one names the other's paths.
if [ "${CONDA_BUILD_CROSS_COMPILATION:-0}" = 1 ]; then
    flags+=(RUN="${CROSSCOMPILING_EMULATOR:?is not set}")
    export OPAL_PREFIX="$PREFIX"
fi
make -j"$CPU_COUNT" "${flags[@]}" all man
make "${flags[@]}" PREFIX="$PREFIX" install
