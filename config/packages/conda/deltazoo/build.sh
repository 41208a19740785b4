#!/bin/bash
# CC, CFLAGS, CPPFLAGS and LDFLAGS are conda's.
set -euo pipefail
flags=(HDF5_PREFIX="$PREFIX" BLAS_LIBS="-llapacke -lblas")
if [ "$mpi" = nompi ]; then flags+=(SERIAL=1 FLAVOUR=serial); else flags+=(MPICC=mpicc); fi
make -j"$CPU_COUNT" "${flags[@]}" all man
make "${flags[@]}" PREFIX="$PREFIX" install
