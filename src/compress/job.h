/* One compress job in flight: what its phases share. Arrays over lossy pairs are numbered as dz_plan.lossy and are equal on all ranks. */
#ifndef DZ_COMPRESS_JOB_H
#define DZ_COMPRESS_JOB_H

#include "archive/copy_tasks.h"
#include "archive/reader.h"
#include "base/lock.h"
#include "compress/compress.h"
#include "compress/journal.h"
#include "config/zoo.h"
#include "numeric/allocate.h"
#include "numeric/candidates.h"
#include "numeric/kernels.h"
#include "parallel/progress.h"
#include "plan/plan.h"

typedef struct dz_lossy {
    dz_grid_levels grid;
    uint64_t *histogram, *before, *quota;        /* [levels] whole tensor; members on lower ranks; to keep */
    double sparsity, trace_norm, trace_variance; /* trace norm of the pruned, rescaled delta, without gamma */
    double sums[2];                              /* of |d| and of d^2 over the whole tensor */
    float scale;
    uint64_t kept, *kept_levels; /* over all ranks, known after coding */
} dz_lossy;

typedef struct dz_job {
    const dz_world *world;
    const dz_compress_options *opt;
    dz_zoo zoo;
    dz_copy_tasks copied; /* with --append: what the archive has already */
    dz_plan *plan;
    size_t levels; /* places per histogram: 2^bits, the most of any pair */
    dz_lossy *lossy;
    uint64_t *histograms, *befores, *quotas, *running, *kepts; /* behind the pointers of `lossy`; running: members so far, while coding */
    double *unit_sums;                                         /* [2 * units] sums of a tile, as in dz_lossy */
    double *task_sparsity;                                     /* [tasks] share of the elements to drop */
    uint64_t *task_key;
    uint64_t *base_digests; /* [2 * base tiles] */
    uint64_t *block_len;    /* [units] checksum included; 0 where there is no block */
    dz_journal journal;     /* blocks on their way to the archive, and what a later run of this job need not do again */
    uint8_t *cache;         /* sieves kept between passes: address space for the budget, touched as it fills */
    size_t cache_size, cache_used;
    uint64_t block_budget;                    /* bytes of coded blocks that may stay in memory */
    const dz_candidates **sieved;             /* [units of this rank] in the cache, or NULL */
    double *gamma, *trace_norm, *trace_error; /* [tasks] */
    double trace_reference;
    dz_lock lock;        /* rank 0: of the archive, while this job runs */
    dz_catalog *catalog; /* rank 0, from dz_job_layout on */
    double secs[DZ_PHASES];
    double bytes_read;
    size_t skipped; /* tasks of the manifest that the archive has already */
    int foreign;    /* the journal was another job's: it is gone */
    int resumed;    /* the journal has something of an earlier run of this job */
} dz_job;

#define DZ_PHASE_READ_BACK DZ_PHASES /* the second half of DZ_PHASE_WRITE, shown by itself */

/* Collective. What is shown of a phase: its number, its name, and how far it has come of `total` bytes. */
void dz_job_begin_phase(const dz_job *job, dz_progress *progress, int phase, double total);

/* Phases, each collective; compress.c calls them in this order. */
dz_rc dz_job_statistics(dz_job *job, dz_error *err); /* ranges and moments of the deltas, digests of the base, exact tensors coded */
dz_rc dz_job_histograms(dz_job *job, dz_error *err); /* levels counted, members on lower ranks */
dz_rc dz_job_allocate(dz_job *job, dz_error *err);   /* sparsity per tensor, quotas */
dz_rc dz_job_code(dz_job *job, dz_error *err);       /* prune and code */
dz_rc dz_job_trace(dz_job *job, dz_error *err);      /* trace norms and gamma */
dz_rc dz_job_layout(dz_job *job, dz_error *err);     /* rank 0: catalog and laid-out file */
dz_rc dz_job_write(dz_job *job, dz_error *err);      /* payloads, read back, rename */

/* compress --append (append.c). Collective: opens the archive, if there is one, and compares names and headers. */
dz_rc dz_job_open_archive(dz_job *job, dz_error *err);
/* After the statistics: the base's values are those of the archive. Alike on every rank. */
dz_rc dz_job_check_base(const dz_job *job, dz_error *err);

/* Quantisers and densities by method (quantiser.c). The same on every rank. */
dz_rc dz_job_set_grids(dz_job *job, const int32_t *extremes, dz_error *err); /* after the statistics */
double dz_job_first_sparsity(const dz_recipe *recipe);                       /* of a task, before a target ratio has been tried */
dz_rc dz_job_allocate_task(dz_job *job, size_t task, dz_error *err);         /* rank 0 */
void dz_job_set_scales(dz_job *job);                                         /* after the allocation */
double dz_job_most_density(const dz_job *job, const dz_tensor_pair *pair);   /* that the allocation may come to, by a guess */
int dz_job_has_levels(const dz_job *job);                                    /* the method quantises */
uint64_t dz_job_block_key(const dz_job *job, const dz_lossy *lossy);         /* of all that a tile's block depends on, but the inputs */

/* Collective. With a target ratio: what each task came to, and the density to try next; 1 in `*again` if a task is off. */
void dz_job_adjust(dz_job *job, int round, int *again);

/* Number i of this rank's units, in the order of its work, and how many there are; the number of a unit among them. */
static inline size_t dz_job_unit(const dz_job *job, size_t i) { return job->plan->work[job->plan->first_work[job->world->rank] + i]; }
static inline size_t dz_job_nunits(const dz_job *job) {
    return job->plan->first_work[job->world->rank + 1] - job->plan->first_work[job->world->rank];
}
static inline size_t dz_job_number(const dz_job *job, size_t unit) {
    return job->plan->place[unit] - job->plan->first_work[job->world->rank];
}

#endif
