/* Recipes: what is done to which tensor (METHODS.md "Policies"). Built-in ones are the files of config/recipes/. */
#ifndef DZ_CONFIG_RECIPE_H
#define DZ_CONFIG_RECIPE_H

#include "checkpoint/checkpoint.h"
#include "config/manifest.h"
#include "config/policy.h"
#include "numeric/noise.h"

typedef enum dz_method_id {
    DZ_METHOD_ULTRADELTA,
    DZ_METHOD_AUTO,      /* signs of the large coefficients of the rotated delta: most accuracy for its bytes */
    DZ_METHOD_DARE,      /* uniform random drop, fp16 survivors, 1 / (1 - s) */
    DZ_METHOD_MAGNITUDE, /* the largest of each tile, fp16, no rescale */
    DZ_METHOD_BITDELTA   /* sign times mean |D| */
} dz_method_id;
typedef enum dz_quality_key { DZ_QUALITY_NONE, DZ_QUALITY_HIGH, DZ_QUALITY_BALANCED, DZ_QUALITY_SMALL, DZ_QUALITY_LOSSLESS } dz_quality_key;
typedef enum dz_allocation_rule { DZ_ALLOCATE_UNIFORM, DZ_ALLOCATE_THIRDS, DZ_ALLOCATE_OPTIMAL } dz_allocation_rule;
typedef enum dz_rescale { DZ_RESCALE_GLOBAL, DZ_RESCALE_TENSOR } dz_rescale;
typedef enum dz_rounding { DZ_ROUND_NEAREST, DZ_ROUND_SYSTEMATIC } dz_rounding;
typedef enum dz_positions { DZ_POSITIONS_SEEDED, DZ_POSITIONS_GOLOMB } dz_positions;
typedef enum dz_tracenorm { DZ_TRACENORM_SLQ, DZ_TRACENORM_EXACT, DZ_TRACENORM_OFF } dz_tracenorm;
typedef enum dz_vocabulary { DZ_VOCABULARY_LOSSY, DZ_VOCABULARY_EXACT } dz_vocabulary;
typedef enum dz_nonfinite { DZ_NONFINITE_ERROR, DZ_NONFINITE_LOSSLESS } dz_nonfinite;

typedef struct dz_rule {
    char *match; /* a glob over the tensor's name; the first rule that matches decides */
    dz_policy policy;
    double sparsity; /* NaN: the recipe's, through the allocation. A number: this tensor's own, outside the allocation */
    int bits;        /* 0: the recipe's */
    double factor;   /* of the decoded delta; 1 unless the rule sets it */
    int line;        /* in the user's file; 0: of a built-in recipe */
} dz_rule;

typedef struct dz_recipe {
    char *name;      /* built-in name or file */
    int detect_line; /* of a `detect` in the user's file, which has no effect; 0: none */
    dz_method_id method;
    double sparsity, step;
    double target_ratio;                  /* on disk, of the lossy tensors of each task; 0: none */
    dz_quality_key quality;               /* fixed accuracy: method auto */
    double noise_to_delta, noise_to_base; /* its limits; NaN: those of `quality` */
    dz_vocabulary vocabulary;             /* fixed accuracy: what structure makes of embeddings and heads of tokens */
    double gain;                          /* auto: NaN: chosen */
    int bits;
    uint32_t given;     /* a bit for each key (recipe_text.h) that the user gave a value: in a file of their own or by --set */
    int method_implied; /* by keys that go with UltraDelta alone */
    int no_groups;      /* dac: off: elements are kept whatever their level */
    dz_allocation_rule allocation;
    dz_rescale rescale;
    dz_rounding rounding;
    dz_positions positions;
    dz_tracenorm tracenorm;
    dz_nonfinite nonfinite;
    uint64_t seed;
    dz_rule *rules;
    size_t nrules;
} dz_recipe;

/* What the user asked for: a file or built-in name (NULL: structure) and KEY=VALUE overrides. */
typedef struct dz_recipe_request {
    const char *recipe;
    const char *const *sets;
    size_t nsets;
    const struct dz_task_request *own; /* [nown] */
    size_t nown;
    const char *only; /* NULL, or the one task of the manifest that is wanted: the others are not opened */
} dz_recipe_request;

#define DZ_TASK_KEYS DZ_MANIFEST_KEYS

/* What one task has in the place of the recipe's: KEY=VALUE each. */
typedef struct dz_task_request {
    const char *task;
    const char *sets[DZ_TASK_KEYS];
    size_t nsets;
} dz_task_request;

/* Finds, parses and checks a recipe. Every problem in one error, a line each (DZ_EUSAGE). A file without rules takes those of structure. */
dz_rc dz_recipe_load(const dz_recipe_request *request, dz_recipe **out, dz_error *err);
void dz_recipe_free(dz_recipe *recipe);

/* The recipe of a task with settings of its own; `where` they are, for complaints. DZ_EUSAGE also where the request is not of method auto,
 * or of a fixed rate. */
dz_rc dz_recipe_load_own(const dz_recipe_request *request, const dz_task_request *own, const char *where, dz_recipe **out, dz_error *err);

/* The rule of a tensor; NULL when none matches (the tensor is then lossless). */
const dz_rule *dz_recipe_rule(const dz_recipe *recipe, const char *tensor);

/* Adds a line for everything without effect in the user's own recipe: mostly a rule that matches no tensor of any task, often a typo. */
dz_rc dz_recipe_notes(const dz_recipe *recipe, dz_checkpoint *const *tasks, size_t ntasks, dz_buf *notes, dz_error *err);

/* The recipe as YAML with every key and rule: as a recipe file it is the same recipe again. Keys of a rule that equal the recipe's are left
 * out. The caller frees. */
char *dz_recipe_text(const dz_recipe *recipe, dz_error *err);

/* Every tensor is kept exactly, by `quality` or because no rule says otherwise. */
int dz_recipe_is_exact(const dz_recipe *recipe);

/* 1 if structure makes embeddings and heads of tokens lossy: with fixed accuracy, which says how much they bear. */
int dz_recipe_codes_vocabulary(const dz_recipe *recipe);

/* The limits of a recipe of fixed accuracy; infinite for another. */
dz_noise_limits dz_recipe_limits(const dz_recipe *recipe);

#define DZ_SETTING_TEXT 160

/* What decides about the bytes: "method auto, quality balanced", "method ultradelta, sparsity 0.97, 4 bits", "no lossy tensor". Returns
 * `text`. */
const char *dz_recipe_setting(const dz_recipe *recipe, char text[DZ_SETTING_TEXT]);

const char *dz_quality_name(dz_quality_key quality);

#endif
