/* Between compress.c, which runs a job, fit.c, which looks for the rate that a target asks for, and job_notes.c. */
#ifndef DZ_COMPRESS_JOB_H
#define DZ_COMPRESS_JOB_H

#include "base/lock.h"
#include "compress/assemble.h"
#include "compress/settle.h"
#define DZ_MEMORY_LEAST ((uint64_t)128 << 20) /* two tiles, their levels and candidates, and what MPI and HDF5 take */

/* A job: what its stages share, and their results in the order in which they come. With chains, the part of it that is one generation. */
typedef struct dz_job {
    dz_context ctx;
    dz_generations *generations;
    dz_plan *plan; /* the context has it as const */
    dz_stats stats;
    dz_shapes shapes;
    dz_lossy_plan lossy;
    dz_counts counts;
    dz_allocation allocation;
    dz_exact_trials trials;
    dz_block_table blocks;
    dz_gammas gammas;
    dz_catalog *catalog;   /* rank 0, from the first layout on */
    dz_lock *lock;         /* rank 0: of the archive, while all generations run */
    int done;              /* an earlier run has made this generation's archive */
    uint64_t block_budget; /* bytes of coded blocks that may stay in memory */
    size_t skipped;        /* tasks of the manifest that the archive has already */
    int foreign;           /* the journal was another job's: it is gone */
    int resumed;           /* the journal has something of an earlier run of this job */
} dz_job;

/* What archive and report are made of, as far as there is. */
dz_results dz_job_results(const dz_job *job);

/* Collective. Allocates and encodes: once; with a target ratio again until every task's lossy tensors have, on disk, the size that was
 * asked for. DZ_EUSAGE names the tasks for which that is not possible within 2 %, and the nearest ratio. */
dz_rc dz_job_encode(dz_job *job, dz_error *err);

/* Rank 0: what the user should know beyond the table, one note a line; what was not taken as the recipe's main case. */
void dz_job_notes(const dz_job *job, dz_buf *notes, dz_error *err);

#endif
