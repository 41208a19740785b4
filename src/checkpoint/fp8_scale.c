#include "checkpoint/fp8_scale.h"

#include <stdlib.h>
#include <string.h>

/* How the name of an F8 tensor ends, and what its scales have in the place of that. */
static const struct ending {
    const char *f8, *scales;
} ENDINGS[] = {{"", "_scale_inv"}, {"", "_scale"}, {".weight", ".scale"}, {".weight", ".scale_inv"}, {".weight", ".scale_weight"}};

#define NENDINGS (sizeof ENDINGS / sizeof *ENDINGS)

/* The tensor whose name is that of `t` with the ending `from` replaced by `to`, or NULL. */
static const dz_tensor *find(const dz_checkpoint *ck, const dz_tensor *t, const char *from, const char *to) {
    size_t len = strlen(t->name), tail = strlen(from);
    if (len <= tail || strcmp(t->name + len - tail, from) != 0) return NULL;
    dz_error none = {0};
    char *text = dz_format(&none, "%.*s%s", (int)(len - tail), t->name, to);
    int64_t at = text ? dz_checkpoint_find(ck, text) : -1;
    free(text);
    return at >= 0 ? &ck->tensors[at] : NULL;
}

const dz_tensor *dz_f8_scales(const dz_checkpoint *ck, const dz_tensor *t) {
    const dz_tensor *scales = NULL;
    for (size_t i = 0; i < NENDINGS && !scales && dz_dtype_is_f8(t->dtype); i++) scales = find(ck, t, ENDINGS[i].f8, ENDINGS[i].scales);
    return scales;
}

const dz_tensor *dz_scale_partner(const dz_checkpoint *ck, const dz_tensor *t) {
    const dz_tensor *other = dz_f8_scales(ck, t);
    for (size_t i = 0; i < NENDINGS && !other; i++) {
        other = find(ck, t, ENDINGS[i].scales, ENDINGS[i].f8);
        if (other && !dz_dtype_is_f8(other->dtype)) other = NULL;
    }
    return other;
}

const dz_tensor *dz_first_scaled(const dz_checkpoint *ck) {
    for (size_t i = 0; i < ck->ntensors; i++) {
        if (dz_f8_scales(ck, &ck->tensors[i])) return &ck->tensors[i];
    }
    return NULL;
}

/* Scales may be of F8 themselves. */
static int is_named_scales(const dz_tensor *t) {
    const char *dot = strrchr(t->name, '.');
    return strstr(dot ? dot : t->name, "scale") != NULL;
}

dz_rc dz_check_scales(const dz_checkpoint *ck, dz_error *err) {
    const dz_tensor *scaled = dz_first_scaled(ck);
    for (size_t i = 0; i < ck->ntensors && scaled; i++) {
        const dz_tensor *t = &ck->tensors[i];
        if (!dz_dtype_is_f8(t->dtype) || t->ndim < 2 || is_named_scales(t) || dz_f8_scales(ck, t)) continue;
        dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s': fp8 scale missing: '%s' has '%s'", ck->shards[t->shard].path, t->name, scaled->name,
                     dz_f8_scales(ck, scaled)->name);
    }
    return err->rc;
}
