# shellcheck shell=bash
# Code that all jobs source. Parameters of all jobs:
#
#   LAUNCH         mpirun | srun (Open MPI built with SLURM's PMIx), or the launcher in full: "mpirun.openmpi --bind-to core -n 32"
#   BIND           auto | none | core | socket ...: what a rank is bound to. auto: a core, if the job has the node's processors to itself (with
#                  srun: as SLURM is configured)
#   RANKS          without SLURM (1)                   OPTIONS       more options for the command: "--recipe llama --set sparsity=0.99"
#   MAX_REQUEUES   20                                  SCRATCH_DIR   node-local, for MPI's own files; otherwise SLURM_TMPDIR or /tmp
#   DELTAZOO       the program (deltazoo, which must be on PATH)
#
# Two minutes before the time limit (--signal), or when a job of higher priority takes the nodes, a job stops (exit code 75) and requeues itself.
# If SLURM sends TERM to the launcher itself, Open MPI's mpirun ends its ranks and fails with 205: that counts as an interruption too.
set -uf # no globbing: OPTIONS and TASKS are lists of words

say() { printf '%(%F %T)T  %s\n' -1 "$*" >&2; }

# need NAME "what it is": a required parameter.
need() {
    [ -n "${!1:-}" ] && return
    echo "$1 is not given: $2" >&2
    exit 2
}

DELTAZOO=${DELTAZOO:-deltazoo}
export OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 # ranks have no threads
quiet() { export OMPI_MCA_orte_execute_quiet=$1 PRTE_MCA_prte_execute_quiet=$1; } # Open MPI 4, and 5
quiet 1                                                           # the program prints the error
scratch=${SCRATCH_DIR:-${SLURM_TMPDIR:-}}
if [ -n "$scratch" ]; then
    if [ ! -d "$scratch" ]; then
        echo "$scratch: no such folder (SCRATCH_DIR)" >&2
        exit 2
    fi
    export TMPDIR=$scratch
fi

bind=${BIND:-auto}
if [ "$bind" = auto ]; then # on a shared node, two jobs would be bound to the same cores
    bind=''
    [ "$(nproc)" != "${SLURM_CPUS_ON_NODE:-}" ] || bind=core:overload-allowed
fi
case ${LAUNCH:-mpirun} in
    mpirun) launch="mpirun${bind:+ --bind-to $bind} -n ${SLURM_NTASKS:-${RANKS:-1}}" ;;
    srun) launch="srun --mpi=pmix${BIND:+ --cpu-bind=$BIND}" ;;
    *) launch=$LAUNCH ;;
esac

# The launcher runs quietly. This runs it again with its messages on (too few slots, no such program, unknown host). The time limit is for hosts
# that do not answer.
# shellcheck disable=SC2086 # LAUNCH is words
explain() {
    quiet 0
    timeout 30 $launch "$DELTAZOO" --version >/dev/null
    quiet 1
}

# Runs a command to its end. USR1 and TERM are passed on as USR1. `wait` returns at each signal, so it is repeated until the command has ended.
# Returns 75 if interrupted.
child='' stopped=''
trap 'stopped=yes; [ -z "$child" ] || kill -USR1 "$child" 2>/dev/null' USR1 TERM
attend() {
    local rc
    [ -z "$stopped" ] || return 75
    "$@" &
    child=$!
    while wait "$child"; kill -0 "$child" 2>/dev/null; do :; done
    wait "$child"
    rc=$?
    child=''
    if [ "$rc" -ne 0 ] && [ -n "$stopped" ]; then rc=75; fi # the signal ended it before its handler was set, or it had nothing to save
    return "$rc"
}

# Runs deltazoo on all ranks with these arguments. Errors of the program itself (1 failed, 2 usage, 3 damage) have been printed by it.
run() {
    local rc
    # shellcheck disable=SC2086 # LAUNCH is words
    attend $launch "$DELTAZOO" "$@"
    rc=$?
    if [ $rc -eq 213 ]; then # Open MPI 5: a killed mpirun that had the same pid has left its session folder in TMPDIR
        say "the launcher did not start: once more"
        attend $launch "$DELTAZOO" "$@"
        rc=$?
    fi
    case $rc in
        0 | 75) ;;
        143 | 205)
            say "the launcher received a stop signal"
            rc=75
            ;;
        1 | 2 | 3) explain ;;
        *)
            if [ $rc -gt 128 ] && [ $rc -lt 193 ]; then say "deltazoo $1 was ended by signal $((rc - 128))"; else say "deltazoo $1 failed with exit code $rc"; fi
            explain
            ;;
    esac
    return "$rc"
}

# started_again: true if this is not the job's first start.
started_again() { [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; }
tell_start() { if started_again; then say "start $((SLURM_RESTART_COUNT + 1)) of job $SLURM_JOB_ID, on $SLURM_JOB_NODELIST"; fi; }

# finish RC "how to go on by hand": ends the script. An interrupted job requeues itself. A job that was cancelled, or whose time is over, is no longer
# running and is not requeued.
finish() {
    local rc=$1 requeued=0
    if [ "$rc" -eq 75 ] && [ -n "${SLURM_JOB_ID:-}" ] && [ -n "$(squeue -h -j "$SLURM_JOB_ID" -t RUNNING -o %i 2>/dev/null)" ]; then
        if [ "${SLURM_RESTART_COUNT:-0}" -ge "${MAX_REQUEUES:-20}" ]; then
            say "interrupted after ${SLURM_RESTART_COUNT:-0} requeues (MAX_REQUEUES): $2"
        else
            say "interrupted: back into the queue"
            scontrol requeue "$SLURM_JOB_ID" || requeued=$?
            [ $requeued -eq 0 ] || [ $requeued -gt 128 ] || say "SLURM does not requeue it: $2" # above 128: ended by the requeue itself
        fi
    elif [ "$rc" -eq 75 ]; then
        say "interrupted: $2"
    fi
    exit "$rc"
}
