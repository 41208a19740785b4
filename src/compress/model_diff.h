/* What a fine-tune changed of its base, without an archive: METHODS.md "Differences of two models". */
#ifndef DZ_COMPRESS_MODEL_DIFF_H
#define DZ_COMPRESS_MODEL_DIFF_H

#include "compress/forecast.h"
#include "numeric/spectrum.h"

typedef struct dz_tensor_diff { /* of a tensor of the model: of a pair of the plan */
    int tied;                   /* its bytes are another tensor's, which has the figures */
    uint64_t common, changed;   /* elements shared with the base's tensor, and those that differ from it in the model's dtype */
    double delta_energy;        /* sum of squares of model minus base, both in the model's dtype; float tensors */
    double base_energy;         /* sum of squares of the base in the model's dtype */
    int ranked;                 /* a matrix of a block: it has a spectrum */
    dz_spectrum spectrum;
} dz_tensor_diff;

typedef enum dz_diff_sort {
    DZ_DIFF_IDENTICAL,
    DZ_DIFF_DTYPE,      /* nothing but the dtypes */
    DZ_DIFF_VOCABULARY, /* rows were added, nothing else */
    DZ_DIFF_HEAD,       /* heads, also new ones */
    DZ_DIFF_NORMS,      /* norms and other vectors */
    DZ_DIFF_EMBEDDINGS,
    DZ_DIFF_LORA,   /* most matrices of blocks by a matrix of low rank and rounding */
    DZ_DIFF_SPARSE, /* few elements */
    DZ_DIFF_FULL,
    DZ_DIFF_OTHER_MODEL, /* the change is larger than the base */
    DZ_DIFF_ADAPTER,     /* not a whole model */
    DZ_DIFF_UNMATCHED,   /* no tensor is found in the base */
    DZ_DIFF_SORTS
} dz_diff_sort;

typedef struct dz_diff_totals {
    size_t tensors, changed;   /* without tied ones and ones that the base does not have; those with a changed element */
    size_t added, absent;      /* only in the model; only in the base */
    size_t body, body_changed; /* matrices of blocks */
    size_t low_rank, ranked;   /* changed ones of low rank; those with a spectrum */
    size_t rank;               /* largest number of significant singular values of a change of low rank */
    size_t other_dtype;        /* tensors of another dtype than the base's */
    size_t grown;              /* embeddings and heads with more rows than the base's */
    uint64_t elements, elements_changed;
    uint64_t among;                   /* elements of the changed tensors */
    double delta_energy, base_energy; /* of the changed tensors */
} dz_diff_totals;

typedef struct dz_model_diff {
    char *name; /* of the model, as a task's */
    dz_zoo zoo; /* base and model */
    dz_plan *plan;
    dz_tensor_diff *tensors; /* [plan->npairs], on all ranks */
    dz_diff_totals totals;
    dz_diff_sort sort;
    dz_forecast forecast; /* rank 0 */
} dz_model_diff;

/* Collective. The same figures for any number of ranks. `request`: the recipe of the sizes to expect. */
dz_rc dz_model_diff_make(const dz_world *world, const char *base, const char *model, const dz_recipe_request *request, int quiet,
                         dz_model_diff *out, dz_error *err);
void dz_model_diff_free(dz_model_diff *diff);

/* Fills totals and sort from the tensors' figures. */
dz_rc dz_diff_judge(dz_model_diff *diff, dz_error *err);

/* "identical", "dtype only", ... */
const char *dz_diff_sort_name(dz_diff_sort sort);

/* A class of tensors that is changed or not as a whole: the base's place of the tensor, where a vector of a head is a head. */
dz_place dz_diff_place(const dz_model_diff *diff, const dz_tensor_pair *pair);

#endif
