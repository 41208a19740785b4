# Sourced by the test scripts: what mpirun needs on a small machine, as root or not (results/ has the measurements).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
cd "$(dirname "${BASH_SOURCE[0]}")/.."
if [ -z "${PYTHON:-}" ]; then
    PYTHON=/usr/bin/python3
    if [ -e build/venv/installed ]; then PYTHON=$PWD/build/venv/bin/python; fi # venv.sh
fi
FLAVOUR=${FLAVOUR:-release}
if [ "$FLAVOUR" = release ]; then DELTAZOO=${DELTAZOO:-$PWD/build/deltazoo}; else DELTAZOO=${DELTAZOO:-$PWD/build/$FLAVOUR/deltazoo}; fi
export DELTAZOO PYTHON FLAVOUR
# Open MPI and HDF5 leave memory behind at exit; leaks of our own are found by the fuzz targets, which use neither.
if [ "$FLAVOUR" = asan ]; then export ASAN_OPTIONS=detect_leaks=0:handle_abort=1:verify_asan_link_order=0 UBSAN_OPTIONS=print_stacktrace=1; fi
