/* How far a restored task is from the fine-tuned model: the error of each tensor (METHODS.md "Noise to signal"). */
#ifndef DZ_ARCHIVE_OPS_COMPARE_H
#define DZ_ARCHIVE_OPS_COMPARE_H

#include "restore/restore.h"

typedef struct dz_tensor_error {
    char *name;
    uint8_t policy;
    uint64_t count;
    int identical;   /* byte for byte */
    double relative; /* ||restored - finetuned||_F / ||finetuned - base||_F; without a base tensor: / ||finetuned||_F */
    double cosine;   /* of the two deltas (of the two tensors without a base) */
    double max_abs;  /* largest |restored - finetuned| */
    double error2, delta2, restored2, dot, base2; /* the sums behind them; base2: energy of the base's elements */
} dz_tensor_error;

typedef struct dz_compare_result {
    dz_tensor_error *tensors; /* rank 0 and all others */
    size_t ntensors;
    dz_tensor_error lossy;            /* all tensors that count in dz_task_quality as one; name NULL */
    dz_tensor_error body, vocabulary; /* those of them that are matrices; embeddings and heads of tokens */
    double secs;
} dz_compare_result;

/* Collective. */
dz_rc dz_compare(const dz_world *world, const char *archive, const char *task, const char *base, const char *finetuned, int quiet,
                 dz_compare_result *result, dz_error *err);
void dz_compare_result_free(dz_compare_result *result);

#endif
