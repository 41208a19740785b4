#include "plan/siblings.h"

#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "plan/role_internal.h"

static uint64_t module_of(const char *name) {
    dz_parts_of_name parts;
    dz_name_split(name, &parts);
    return dz_hash64(name, (size_t)(parts.part[dz_own_part(&parts)].text - name), 2);
}

static int compare(const void *x, const void *y) {
    const dz_sibling *a = x, *b = y;
    if (a->module != b->module) return a->module < b->module ? -1 : 1;
    if (a->kind != b->kind) return a->kind < b->kind ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

dz_rc dz_siblings_make(const dz_plan *plan, dz_siblings *out, dz_error *err) {
    *out = (dz_siblings){.of = dz_alloc(plan->base->ntensors, sizeof *out->of, err)};
    for (size_t i = 0; err->rc == DZ_OK && i < plan->base->ntensors; i++) {
        const dz_tensor_role *r = &plan->roles[i];
        if (r->view.count == 1 && r->kind != DZ_KIND_OTHER && r->kind != DZ_KIND_CONV)
            out->of[out->n++] = (dz_sibling){.module = module_of(plan->base->tensors[i].name), .kind = r->kind, .tensor = i};
    }
    if (out->n) qsort(out->of, out->n, sizeof *out->of, compare);
    return err->rc;
}

void dz_siblings_free(dz_siblings *s) {
    free(s->of);
    *s = (dz_siblings){0};
}

int64_t dz_sibling_of(const dz_siblings *s, const dz_plan *plan, size_t tensor, dz_kind kind) {
    dz_sibling wanted = {.module = module_of(plan->base->tensors[tensor].name), .kind = kind};
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (compare(&s->of[mid], &wanted) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    int found = low < s->n && s->of[low].module == wanted.module && s->of[low].kind == kind;
    int more = found && low + 1 < s->n && s->of[low + 1].module == wanted.module && s->of[low + 1].kind == kind;
    return found && !more ? (int64_t)s->of[low].tensor : -1;
}
