#include "compress/auto_parent.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "numeric/kernels.h"

#define RUN 256 /* elements next to each other */
#define RUNS 64
#define SEED 20

/* The sample: runs of the base's matrices, and the same places of each task. */
typedef struct sample {
    size_t tensor[RUNS];
    uint64_t first[RUNS];
    size_t n;
    float *base, *tasks; /* [n * RUN], [tasks][n * RUN] */
} sample;

static int is_sampled(const dz_tensor *t) { return t->ndim >= 2 && t->count >= RUN && dz_dtype_is_float(t->dtype); }

/* Spread over all matrices: one run of some, or several of each where they are few. */
static void choose_runs(const dz_checkpoint *base, sample *s) {
    size_t nmatrices = 0, seen = 0;
    for (size_t i = 0; i < base->ntensors; i++) nmatrices += (size_t)is_sampled(&base->tensors[i]);
    for (size_t i = 0; i < base->ntensors; i++) {
        const dz_tensor *t = &base->tensors[i];
        if (!is_sampled(t)) continue;
        for (seen++; s->n < seen * RUNS / nmatrices; s->n++) {
            s->tensor[s->n] = i;
            s->first[s->n] = dz_u64_at(SEED, s->n) % (t->count - RUN + 1);
        }
    }
}

/* A tensor that the model has otherwise counts as the base's. */
static dz_rc read_runs(const sample *s, const dz_checkpoint *base, dz_checkpoint *model, float *out, dz_error *err) {
    _Alignas(8) uint8_t raw[RUN * sizeof(double)];
    for (size_t i = 0; i < s->n; i++) {
        const dz_tensor *t = &base->tensors[s->tensor[i]];
        int64_t at = dz_checkpoint_find(model, t->name);
        size_t size = dz_dtype_size(t->dtype);
        if (at < 0 || !dz_same_kind(&model->tensors[at], t)) {
            memcpy(out + i * RUN, s->base + i * RUN, RUN * sizeof *out);
            continue;
        }
        if (dz_checkpoint_read(model, (size_t)at, s->first[i] * size, RUN * size, raw, err) != DZ_OK) return err->rc;
        dz_kernels()->widen(out + i * RUN, raw, t->dtype, RUN);
    }
    return DZ_OK;
}

static double distance(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (double)b[i];
        if (isfinite(d)) sum += d * d;
    }
    return sum;
}

/* The tree while it grows. Numbers are the zoo's. */
typedef struct tree {
    const dz_zoo *zoo;
    const sample *s;
    char **parent; /* [tasks] as given */
    double *best;  /* [tasks] energy to the nearest that is in it, of those that look for a parent */
    int64_t *near; /* [tasks] that one; -1: the base */
    uint8_t *in, *looks;
} tree;

/* A task joins, and with it those that name it as their parent; the others may be nearer to it. */
static void join(tree *t, size_t k, size_t *queue) {
    size_t n = 0, len = t->s->n * RUN;
    queue[n++] = k;
    t->in[k] = 1;
    while (n > 0) {
        size_t at = queue[--n];
        for (size_t i = 0; i < t->zoo->ntasks; i++) {
            if (t->in[i]) continue;
            if (!t->looks[i]) {
                if (!t->parent[i] || strcmp(t->parent[i], t->zoo->names[at]) != 0) continue; /* without one: it joins by itself */
                t->in[i] = 1;
                queue[n++] = i;
                continue;
            }
            double d = distance(t->s->tasks + i * len, t->s->tasks + at * len, len);
            if (d >= t->best[i]) continue;
            t->best[i] = d;
            t->near[i] = (int64_t)at;
        }
    }
}

static void grow(tree *t, size_t *queue) {
    size_t len = t->s->n * RUN, n = t->zoo->ntasks;
    for (size_t i = 0; i < n; i++) {
        t->near[i] = -1;
        t->best[i] = DZ_AUTO_WORTH * distance(t->s->tasks + i * len, t->s->base, len);
    }
    for (size_t i = 0; i < n; i++) {
        if (!t->in[i] && !t->parent[i]) join(t, i, queue);
    }
    for (;;) {
        size_t next = n;
        for (size_t i = 0; i < n; i++) {
            if (t->looks[i] && !t->in[i] && (next == n || t->best[i] < t->best[next])) next = i;
        }
        if (next == n) return;
        join(t, next, queue);
    }
}

/* Rank 0: near[t], for the tasks that look. `parent` by the zoo's numbers. */
static dz_rc find(const dz_zoo *zoo, char **parent, uint8_t *looks, int64_t *near, dz_error *err) {
    sample s = {0};
    choose_runs(zoo->base, &s);
    size_t n = zoo->ntasks, len = s.n * RUN, *queue = dz_alloc(n, sizeof *queue, err);
    tree t = {.zoo = zoo, .s = &s, .parent = parent, .near = near, .looks = looks};
    s.base = dz_alloc(len, sizeof *s.base, err);
    s.tasks = dz_alloc(n * len, sizeof *s.tasks, err);
    t.best = dz_alloc(n, sizeof *t.best, err);
    t.in = dz_alloc(n, 1, err);
    if (err->rc == DZ_OK) read_runs(&s, zoo->base, zoo->base, s.base, err);
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++) read_runs(&s, zoo->base, zoo->tasks[i], s.tasks + i * len, err);
    if (err->rc == DZ_OK) grow(&t, queue);
    free(queue);
    free(s.base);
    free(s.tasks);
    free(t.best);
    free(t.in);
    return err->rc;
}

dz_rc dz_auto_parents(const dz_world *world, const dz_zoo *zoo, char **parent, dz_error *err) {
    size_t n = zoo->ntasks, any = 0, *number = dz_alloc(n, sizeof *number, err);
    char **mine = dz_alloc(n, sizeof *mine, err);
    uint8_t *looks = dz_alloc(n, 1, err);
    int64_t *near = dz_alloc(n, sizeof *near, err);
    dz_rc rc = dz_sync_error(world, err->rc, err);
    if (rc != DZ_OK) goto out;
    for (size_t t = 0; t < n; t++) {
        number[t] = dz_zoo_in_manifest(zoo, t);
        mine[t] = number[t] == DZ_NOT_IN_MANIFEST ? NULL : parent[number[t]];
        looks[t] = mine[t] && strcmp(mine[t], DZ_PARENT_AUTO) == 0;
        any += looks[t];
    }
    if (any && world->rank == 0) rc = find(zoo, mine, looks, near, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if (any) dz_bcast_u64(world, (uint64_t *)(void *)near, n);
    for (size_t t = 0; t < n; t++) {
        if (!looks[t]) continue;
        free(parent[number[t]]);
        parent[number[t]] = near[t] >= 0 && near[t] < (int64_t)n ? dz_strdup(zoo->names[near[t]], err) : NULL;
    }
    for (size_t m = 0; m < zoo->manifest->ntasks; m++) { /* of tasks that are not compressed */
        if (!parent[m] || strcmp(parent[m], DZ_PARENT_AUTO) != 0) continue;
        free(parent[m]);
        parent[m] = NULL;
    }
    rc = dz_sync_error(world, err->rc, err);
out:
    free(number);
    free(mine);
    free(looks);
    free(near);
    return rc;
}
