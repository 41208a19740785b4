/* Sixth stage: trace norms of what is really stored, and gamma (UltraDelta's TNGR). */
#ifndef DZ_COMPRESS_GAMMAS_H
#define DZ_COMPRESS_GAMMAS_H

#include "compress/encode.h"

typedef struct dz_gammas {
    double *gamma;         /* [tasks] */
    double *trace_norm;    /* [tasks] of the pruned, rescaled delta, without gamma */
    double *error;         /* [tasks] standard error of that */
    double reference;      /* the smallest trace norm of the tasks compressed together, or the archive's; 0: none */
    size_t reference_task; /* the task that has it; SIZE_MAX: the archive's */
} dz_gammas;

/* Gamma 1 everywhere, and the reference of an archive that tasks are added to. */
dz_rc dz_gammas_init(const dz_context *ctx, dz_gammas *out, dz_error *err);

/* Collective. */
dz_rc dz_trace_norms(dz_context *ctx, const dz_lossy_plan *lossy, const dz_allocation *allocation, const dz_block_table *blocks,
                     dz_gammas *out, dz_error *err);
void dz_gammas_free(dz_gammas *gammas);

#endif
