#include "parallel/world.h"

#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fault.h"

#define PIECE ((size_t)1 << 24) /* elements in one MPI call: its counts are ints */

/* What the mpirun of Open MPI, of MPICH and Intel MPI, and of MVAPICH puts into the environment of its processes, */
static const char *const MPIRUN[] = {"OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS", "MV2_COMM_WORLD_SIZE", NULL};
/* and what srun does as well, with --mpi=pmix or pmi2. */
static const char *const PMI[] = {"PMIX_RANK", "PMIX_NAMESPACE", "PMI_RANK", "PMI_SIZE", "PMI_FD", NULL};

static int has_any(const char *const *names) {
    while (*names && !getenv(*names)) names++;
    return *names != NULL;
}

/* Tasks of the job step that srun made this process in; 1 outside of one. A batch script is a step of one task, whatever its job has. */
static int tasks_of_step(void) {
    const char *tasks = getenv("SLURM_STEP_NUM_TASKS"), *rank = getenv("SLURM_PROCID");
    return tasks && rank ? atoi(tasks) : 1;
}

/* Ends a process that was started in a way that cannot work. All its like do so, one speaks. */
static void refuse_start(const char *why) {
    const char *rank = getenv("SLURM_PROCID");
    if (!rank || atoi(rank) == 0) fprintf(stderr, "deltazoo: error: %s\n", why);
    exit(2);
}

/* As many programs would work at the same files, each as if it were alone. */
static void refuse_lone_tasks(void) {
    char why[128];
    snprintf(why, sizeof why, "SLURM started %d tasks, but MPI sees one process: use srun --mpi=pmix, or mpirun", tasks_of_step());
    refuse_start(why);
}

/* Where all ranks are on one host, memory is all they need: looking for a fabric takes Open MPI 0.2 s, more than a small job. What the user
 * has chosen stays. */
static void choose_transport(void) {
    const char *all = getenv("OMPI_COMM_WORLD_SIZE"), *here = getenv("OMPI_COMM_WORLD_LOCAL_SIZE");
    if (all && here && strcmp(all, here) == 0) setenv("OMPI_MCA_pml", "ob1", 0);
}

void dz_world_begin(dz_world *world, int *argc, char ***argv) {
    choose_transport();
    setenv("OMPI_MCA_sharedfp", "^sm", 0); /* its semaphores outlive killed jobs and hang the next one */
    setenv("OPENBLAS_NUM_THREADS", "1", 0);
    setenv("OMP_NUM_THREADS", "1", 0);
    *world = (dz_world){.comm = MPI_COMM_NULL, .progress = MPI_COMM_NULL, .rank = 0, .size = 1};
    int by_mpirun = has_any(MPIRUN), lone = !by_mpirun && tasks_of_step() > 1;
#ifdef DZ_SERIAL
    if (by_mpirun || lone || has_any(PMI)) refuse_start("this program was built without MPI: run it alone");
    return;
#endif
    if (!by_mpirun && !has_any(PMI)) {
        if (lone) refuse_lone_tasks();
        return;
    }
    MPI_Init(argc, argv);
    MPI_Comm_dup(MPI_COMM_WORLD, &world->comm);
    MPI_Comm_dup(MPI_COMM_WORLD, &world->progress);
    MPI_Comm_rank(world->comm, &world->rank);
    MPI_Comm_size(world->comm, &world->size);
    if (lone && world->size == 1) { /* srun speaks a PMI that this MPI does not know */
        MPI_Finalize();
        refuse_lone_tasks();
    }
    dz_fault_rank(world->rank);
}

#define END_SECONDS 120 /* for MPI_Finalize, when every rank has come to its end */

static volatile sig_atomic_t settled_code;

static void leave(int number) {
    (void)number;
    _exit(settled_code);
}

void dz_world_end(dz_world *world, int code) {
    static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGALRM};
    if (world->comm == MPI_COMM_NULL) return;
    MPI_Barrier(world->comm);
    settled_code = code;
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) sigaction(deadly[i], &(struct sigaction){.sa_handler = leave}, NULL);
    alarm(END_SECONDS);
    if (dz_fault("finalize")) raise(SIGSEGV);
    MPI_Comm_free(&world->progress);
    MPI_Comm_free(&world->comm);
    MPI_Finalize();
    alarm(0);
    for (size_t i = 0; i < sizeof deadly / sizeof *deadly; i++) signal(deadly[i], SIG_DFL);
}

dz_rc dz_sync_error(const dz_world *world, dz_rc rc, dz_error *err) {
    if (dz_fault("agree")) rc = dz_fail(err, DZ_EFAIL, "an injected fault");
    int mine = rc == DZ_OK ? INT_MAX : world->rank, first;
    if (world->size == 1) return rc == DZ_OK ? DZ_OK : err->rc != DZ_OK ? err->rc : rc;
    MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world->comm);
    if (first == INT_MAX) return DZ_OK;
    struct {
        int rc, problems;
        char text[DZ_ERROR_TEXT];
    } packed = {0};
    if (world->rank == first) {
        packed.rc = (int)rc;
        packed.problems = err->problems;
        memcpy(packed.text, err->text, sizeof packed.text);
    }
    MPI_Bcast(&packed, (int)sizeof packed, MPI_BYTE, first, world->comm);
    err->rc = (dz_rc)packed.rc;
    err->problems = packed.problems;
    memcpy(err->text, packed.text, sizeof err->text);
    return err->rc;
}

dz_rc dz_bcast_buf(const dz_world *world, dz_buf *buf, dz_error *err) {
    uint64_t len = buf->len;
    dz_bcast_u64(world, &len, 1);
    dz_rc rc = DZ_OK;
    if (world->rank != 0) {
        buf->len = 0;
        rc = dz_buf_reserve(buf, (size_t)len, err);
    }
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) return rc;
    for (size_t at = 0; world->size > 1 && at < len; at += PIECE)
        MPI_Bcast(buf->data + at, (int)(len - at < PIECE ? len - at : PIECE), MPI_BYTE, 0, world->comm);
    buf->len = (size_t)len;
    return DZ_OK;
}

void dz_gather(const dz_world *world, const void *mine, size_t len, void *all) {
    if (world->size == 1)
        memcpy(all, mine, len);
    else
        MPI_Gather(mine, (int)len, MPI_BYTE, all, (int)len, MPI_BYTE, 0, world->comm);
}

static void reduce(const dz_world *world, void *values, size_t count, size_t size, MPI_Datatype type, MPI_Op op) {
    for (size_t at = 0; world->size > 1 && at < count; at += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, (char *)values + at * size, (int)(count - at < PIECE ? count - at : PIECE), type, op, world->comm);
}

void dz_sum_u64(const dz_world *world, uint64_t *values, size_t count) { reduce(world, values, count, 8, MPI_UINT64_T, MPI_SUM); }
void dz_sum_f64(const dz_world *world, double *values, size_t count) { reduce(world, values, count, 8, MPI_DOUBLE, MPI_SUM); }
void dz_min_i64(const dz_world *world, int64_t *values, size_t count) { reduce(world, values, count, 8, MPI_INT64_T, MPI_MIN); }
void dz_max_i32(const dz_world *world, int32_t *values, size_t count) { reduce(world, values, count, 4, MPI_INT32_T, MPI_MAX); }
void dz_max_f64(const dz_world *world, double *values, size_t count) { reduce(world, values, count, 8, MPI_DOUBLE, MPI_MAX); }

void dz_exscan_u64(const dz_world *world, uint64_t *values, size_t count) {
    for (size_t at = 0; world->size > 1 && at < count; at += PIECE)
        MPI_Exscan(MPI_IN_PLACE, values + at, (int)(count - at < PIECE ? count - at : PIECE), MPI_UINT64_T, MPI_SUM, world->comm);
    if (world->rank == 0 && count) memset(values, 0, count * sizeof *values); /* Exscan leaves rank 0's undefined */
}

void dz_bcast_f64(const dz_world *world, double *values, size_t count) {
    for (size_t at = 0; world->size > 1 && at < count; at += PIECE)
        MPI_Bcast(values + at, (int)(count - at < PIECE ? count - at : PIECE), MPI_DOUBLE, 0, world->comm);
}

void dz_bcast_u64(const dz_world *world, uint64_t *values, size_t count) {
    for (size_t at = 0; world->size > 1 && at < count; at += PIECE)
        MPI_Bcast(values + at, (int)(count - at < PIECE ? count - at : PIECE), MPI_UINT64_T, 0, world->comm);
}

void dz_mpi_version(char *text, size_t size) {
#ifdef DZ_PARALLEL_SERIAL_MPI_H
    snprintf(text, size, "none: built without it");
#else
    char all[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int len = 0;
    MPI_Get_library_version(all, &len);
    all[strcspn(all, ",\n")] = '\0';
    const char *word = strstr(all, " Version:"); /* MPICH: a line "MPICH Version:      4.2.1" */
    if (word)
        snprintf(text, size, "%.*s %s", (int)(word - all), all, word + 9 + strspn(word + 9, " \t"));
    else
        snprintf(text, size, "%s", all);
#endif
}
