/* What a job would make of a zoo, from a sample of its data: sizes, noise and verdict of each task, before any work. */
#ifndef DZ_COMPRESS_FORECAST_H
#define DZ_COMPRESS_FORECAST_H

#include "compress/chains.h"
#include "compress/shapes.h"
#include "config/zoo.h"

typedef struct dz_forecast_tensor { /* of a pair */
    dz_tensor_stats stats;          /* of the sample, sums scaled to the whole tensor */
    dz_tensor_coding coding;        /* lossy tensors */
    int exact;                      /* a lossy tensor whose exact coding is expected to be no larger */
    double off;                     /* expected energy of what it is off when restored */
    double bytes;                   /* expected in the archive */
    double exact_bytes;             /* expected if it were kept exactly */
} dz_forecast_tensor;

typedef struct dz_forecast_task {
    double source, stored;             /* bytes of all its tensors: in their files, expected in the archive */
    double lossy_source, lossy_stored; /* of the lossy ones */
    double exact;                      /* expected in the archive if all tensors were kept exactly */
    size_t turned_exact;               /* lossy tensors that are expected to be kept exactly */
    dz_quality quality;                /* expected, without gamma */
} dz_forecast_task;

typedef struct dz_forecast {
    dz_forecast_tensor *tensors; /* [pairs] */
    dz_forecast_task *tasks;     /* [tasks] */
    dz_shapes shapes;            /* by a sample of rows */
    int64_t *up;                 /* [tasks] the parent, or -1 */
    size_t *order;               /* [tasks] parents before their children */
} dz_forecast;

/* One process. Reads up to 256 Ki elements of each tensor and of its base, in runs spread evenly. A tensor whose sample is not finite has a
 * forecast without noise. `generations`: what is coded against which, or NULL: all against the base. Of a parent its own model is read, and
 * the noise that it is expected to have is taken to have no relation to the child's step. */
dz_rc dz_forecast_make(const dz_zoo *zoo, const dz_plan *plan, const dz_generations *generations, dz_forecast *out, dz_error *err);
/* Sizes and quality anew from the same sample, for other limits: of methods without levels, all against the base. */
dz_rc dz_forecast_again(const dz_zoo *zoo, const dz_plan *plan, dz_forecast *forecast, dz_error *err);
void dz_forecast_free(dz_forecast *forecast);

#endif
