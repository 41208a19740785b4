# Sourced by scripts outside the test tree (demo, benchmarks, experiments, fuzzing): what mpirun needs on a small machine, as root or not (results/ has the measurements).
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_mpi_yield_when_idle=1
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1
cd "$(dirname "${BASH_SOURCE[0]}")/.."
PYTHON=${PYTHON:-/usr/bin/python3}
FLAVOUR=${FLAVOUR:-release}
if [ "$FLAVOUR" = release ]; then DELTAZOO=${DELTAZOO:-$PWD/build/deltazoo}; else DELTAZOO=${DELTAZOO:-$PWD/build/$FLAVOUR/deltazoo}; fi
export DELTAZOO PYTHON FLAVOUR
