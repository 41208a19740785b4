#include "model/scales.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

static const char *const suffixes[] = {"_scale_inv", "_scale"};

#define NSUFFIXES (sizeof suffixes / sizeof *suffixes)

static int is_f8(const dz_tensor *t) { return t->dtype == DZ_F8_E4M3 || t->dtype == DZ_F8_E5M2; }

/* The tensor whose name is the first `len` characters of `name` and then `suffix`, or NULL. */
static const dz_tensor *find(const dz_checkpoint *ck, const char *name, size_t len, const char *suffix) {
    dz_error none = {0};
    char *text = dz_format(&none, "%.*s%s", (int)len, name, suffix);
    int64_t at = text ? dz_checkpoint_find(ck, text) : -1;
    free(text);
    return at >= 0 ? &ck->tensors[at] : NULL;
}

const dz_tensor *dz_scale_partner(const dz_checkpoint *ck, const dz_tensor *t) {
    size_t len = strlen(t->name);
    for (size_t i = 0; i < NSUFFIXES; i++) {
        size_t tail = strlen(suffixes[i]);
        const dz_tensor *other = NULL;
        if (is_f8(t))
            other = find(ck, t->name, len, suffixes[i]);
        else if (len > tail && strcmp(t->name + len - tail, suffixes[i]) == 0)
            other = find(ck, t->name, len - tail, "");
        if (other && (is_f8(t) || is_f8(other))) return other;
    }
    return NULL;
}

/* Equal but for numbers: layers of one kind. */
static int siblings(const char *a, const char *b) {
    while (*a && *b) {
        if (isdigit((unsigned char)*a) && isdigit((unsigned char)*b)) {
            while (isdigit((unsigned char)*a)) a++;
            while (isdigit((unsigned char)*b)) b++;
        } else if (*a++ != *b++) {
            return 0;
        }
    }
    return *a == *b;
}

dz_rc dz_check_scales(const dz_checkpoint *ck, dz_error *err) {
    for (size_t i = 0; i < ck->ntensors; i++) {
        const dz_tensor *t = &ck->tensors[i];
        if (!is_f8(t) || dz_scale_partner(ck, t)) continue;
        for (size_t k = 0; k < ck->ntensors; k++) {
            const dz_tensor *other = &ck->tensors[k];
            if (!is_f8(other) || !siblings(t->name, other->name) || !dz_scale_partner(ck, other)) continue;
            dz_fail_more(err, DZ_EFAIL, "%s: tensor '%s': fp8 scale missing: its sibling '%s' has '%s'", ck->shards[t->shard].path, t->name,
                         other->name, dz_scale_partner(ck, other)->name);
            break;
        }
    }
    return err->rc;
}
