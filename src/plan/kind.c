/* What a matrix does in its block, by the names that people give. */
#include "plan/role_internal.h"

const char *dz_kind_name(dz_kind kind) {
    static const char *const names[DZ_NKINDS] = {"other", "q", "k", "v", "o", "attention-other", "gate", "up", "down", "mlp-other", "conv"};
    return names[kind];
}

static const char ATTENTION[] = "attn attention mha xattn selfattention crossattention encdecattention multihead";
static const char MLP[] = "mlp mlps ffn ff feed feedforward expert experts moe intermediate densereludense net";

static int any_part(const dz_named *named, const char *words) {
    for (size_t i = named->block; i + 1 < named->name.n; i++) {
        if (dz_part_has(&named->name.part[i], words)) return 1;
    }
    return 0;
}

static int in_attention(const dz_named *named) {
    for (size_t i = named->block; i < named->name.n; i++) {
        const dz_part *part = &named->name.part[i];
        if (dz_part_contains(part, "attn") || dz_part_contains(part, "attention") || dz_part_has(part, ATTENTION)) return 1;
    }
    return 0;
}

/* A layer's number within a sequence, as in net.2 of an MLP; -1 when it has none. */
static int32_t number_of(const dz_parts_of_name *name, size_t own) {
    if (own + 1 < name->n && dz_part_is_number(&name->part[own + 1])) return name->part[own + 1].number;
    return name->part[own].number;
}

static dz_kind attention_kind(const dz_part *own) {
    int q = dz_part_has(own, "q query queries wq"), k = dz_part_has(own, "k key keys wk"), v = dz_part_has(own, "v value values wv");
    if (dz_part_contains(own, "qkv") || q + k + v > 1 || dz_part_has(own, "kv qk")) return DZ_KIND_ATTENTION_OTHER;
    if (q) return DZ_KIND_Q;
    if (k) return DZ_KIND_K;
    if (v) return DZ_KIND_V;
    if (dz_part_contains(own, "c_attn") || dz_part_has(own, "in pos rel relative")) return DZ_KIND_ATTENTION_OTHER;
    if (dz_part_has(own, "o out wo output") || dz_part_is(own, "proj c_proj projection dense linear to_add_out")) return DZ_KIND_O;
    return DZ_KIND_ATTENTION_OTHER;
}

static dz_kind mlp_kind(const dz_part *own, int32_t number, const dz_matrix_view *view) {
    uint64_t in = dz_view_inputs(view), out = view->in_first ? view->cols : view->rows;
    int gate = dz_part_has(own, "gate gating"), up = dz_part_has(own, "up");
    if (gate && up) return DZ_KIND_MLP_OTHER;
    if (gate) return DZ_KIND_GATE;
    if (up) return DZ_KIND_UP;
    if (dz_part_has(own, "down") || dz_part_is(own, "c_proj fc_out wo output_linear")) return DZ_KIND_DOWN;
    if (dz_part_is(own, "w")) return number == 1 ? DZ_KIND_GATE : number == 2 ? DZ_KIND_DOWN : number == 3 ? DZ_KIND_UP : DZ_KIND_MLP_OTHER;
    if (dz_part_is(own, "wi_")) return number == 0 ? DZ_KIND_GATE : DZ_KIND_UP;
    if (dz_part_is(own, "fc lin linear linear_ dense_ ff_"))
        return number == 1 ? DZ_KIND_UP : number == 2 ? DZ_KIND_DOWN : DZ_KIND_MLP_OTHER;
    if (dz_part_contains(own, "h_to_") || dz_part_is(own, "c_fc fc_in wi")) return out > in ? DZ_KIND_UP : DZ_KIND_DOWN;
    if (out >= 2 * in) return DZ_KIND_UP;
    if (in >= 2 * out) return DZ_KIND_DOWN;
    return DZ_KIND_MLP_OTHER;
}

dz_kind dz_kind_of(const dz_tensor *t, const dz_named *named, const dz_matrix_view *view) {
    const dz_parts_of_name *name = &named->name;
    if (named->block == SIZE_MAX || view->count == 0) return DZ_KIND_OTHER;
    size_t at = dz_own_part(name);
    const dz_part *own = &name->part[at];
    if (view->count == 1 && t->ndim > 2) return DZ_KIND_CONV;
    if (in_attention(named) && !any_part(named, "mlp ffn intermediate expert experts")) return attention_kind(own);
    if (own->number > 0 && dz_part_is(own, "fc lin linear")) return mlp_kind(own, own->number, view);
    if (dz_part_is(own, "gate_proj up_proj down_proj gate_up_proj") || any_part(named, MLP))
        return mlp_kind(own, number_of(name, at), view);
    return DZ_KIND_OTHER;
}
