/* One compress job in flight: what its phases share. Arrays over lossy pairs are numbered as dz_plan.lossy and are equal on all ranks. */
#ifndef DZ_PIPELINE_JOB_H
#define DZ_PIPELINE_JOB_H

#include "archive/reader.h"
#include "archive/spool.h"
#include "numeric/allocate.h"
#include "parallel/progress.h"
#include "pipeline/compress.h"
#include "pipeline/zoo.h"
#include "plan/plan.h"

typedef struct dz_lossy {
    dz_grid_levels grid;
    uint64_t *histogram, *before, *quota;        /* [levels] whole tensor; members on lower ranks; to keep */
    double sparsity, trace_norm, trace_variance; /* trace norm of the pruned, rescaled delta, without gamma */
    float scale;
    uint64_t kept;
} dz_lossy;

typedef struct dz_job {
    const dz_world *world;
    const dz_compress_options *opt;
    dz_zoo zoo;
    dz_plan *plan;
    size_t levels; /* places per histogram: 2^bits, the most of any pair */
    dz_lossy *lossy;
    uint64_t *histograms, *befores, *quotas; /* behind the pointers of `lossy` */
    uint64_t *task_key;
    uint64_t *base_digests; /* [2 * base tiles] */
    uint64_t *block_len;    /* [units] checksum included; 0 where there is no block */
    dz_spool spool;
    uint8_t *cache; /* levels kept between passes: address space for the budget, touched as it fills */
    size_t cache_size, cache_used;
    uint8_t **cached;                         /* [units of this rank] their packed levels in the cache, or NULL */
    double *gamma, *trace_norm, *trace_error; /* [tasks] */
    double trace_reference;
    double secs[DZ_PHASES];
    double bytes_read;
} dz_job;

/* Phases, each collective; compress.c calls them in this order. */
dz_rc dz_job_statistics(dz_job *job, dz_error *err); /* ranges of the deltas, digests of the base, exact tensors coded */
dz_rc dz_job_histograms(dz_job *job, dz_error *err); /* levels counted, members on lower ranks */
dz_rc dz_job_allocate(dz_job *job, dz_error *err);   /* sparsity per tensor, quotas */
dz_rc dz_job_code(dz_job *job, dz_error *err);       /* prune and code */
dz_rc dz_job_trace(dz_job *job, dz_error *err);      /* trace norms and gamma */
dz_rc dz_job_write(dz_job *job, dz_catalog **out, dz_error *err);

static inline size_t dz_job_first(const dz_job *job) { return job->plan->first_unit[job->world->rank]; }
static inline size_t dz_job_end(const dz_job *job) { return job->plan->first_unit[job->world->rank + 1]; }

#endif
