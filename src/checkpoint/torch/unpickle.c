#include "checkpoint/torch/unpickle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/torch/pickle_names.h"

#define NO_VALUE UINT32_MAX
#define PROTOCOL_LEAST 2
#define PROTOCOL_MOST 5

typedef struct machine {
    const char *name;
    dz_view in;
    size_t at; /* byte of the opcode at work */
    uint8_t opcode;
    dz_pickle p;
    uint32_t *stack;
    size_t depth, stack_cap;
    size_t *marks; /* stack depths */
    size_t nmarks, marks_cap;
    uint32_t *memo;
    size_t nmemo, memo_cap;
    dz_error *err;
} machine;

static int is_counted(dz_pickle_kind kind) { return kind == DZ_PICKLE_TUPLE || kind == DZ_PICKLE_LIST || kind == DZ_PICKLE_DICT; }
static int is_container(dz_pickle_kind kind) { return is_counted(kind) || kind == DZ_PICKLE_OBJECT || kind == DZ_PICKLE_OTHER_TENSOR; }

void dz_pickle_free(dz_pickle *p) {
    free(p->values);
    free(p->members);
    free(p->items);
    free(p->storages);
    free(p->tensors);
    *p = (dz_pickle){0};
}

char *dz_pickle_text(const uint8_t *bytes, size_t len, char text[DZ_PICKLE_TEXT]) {
    size_t n = len < DZ_PICKLE_TEXT - 4 ? len : DZ_PICKLE_TEXT - 4;
    for (size_t i = 0; i < n; i++) text[i] = (char)(bytes[i] >= 0x20 && bytes[i] < 0x7f ? bytes[i] : '?');
    memcpy(text + n, n < len ? "..." : "", n < len ? 4 : 1);
    return text;
}

const char *dz_pickle_kind_name(const dz_pickle_value *v) {
    static const char *const names[] = {
        [DZ_PICKLE_NONE] = "None",         [DZ_PICKLE_BOOL] = "a bool",    [DZ_PICKLE_INT] = "an int",
        [DZ_PICKLE_FLOAT] = "a float",     [DZ_PICKLE_STR] = "a string",   [DZ_PICKLE_TUPLE] = "a tuple",
        [DZ_PICKLE_LIST] = "a list",       [DZ_PICKLE_DICT] = "a dict",    [DZ_PICKLE_GLOBAL] = "a global name",
        [DZ_PICKLE_STORAGE] = "a storage", [DZ_PICKLE_TENSOR] = "a tensor"};
    if (v->kind == DZ_PICKLE_OTHER_TENSOR) return "a tensor";
    const dz_global *g = v->kind == DZ_PICKLE_OBJECT || v->kind == DZ_PICKLE_GLOBAL ? dz_global_at(v->global) : NULL;
    if (g && g->role == DZ_GLOBAL_DTYPE) return "a dtype";
    if (g && g->role == DZ_GLOBAL_PLAIN) return g->what;
    return v->kind == DZ_PICKLE_OBJECT ? "an object" : names[v->kind];
}

int dz_pickle_is_tensor(const dz_pickle_value *v) { return v->kind == DZ_PICKLE_TENSOR || v->kind == DZ_PICKLE_OTHER_TENSOR; }

char *dz_pickle_describe(const dz_pickle *p, uint32_t value, char text[DZ_PICKLE_TEXT]) {
    const dz_pickle_value *v = &p->values[value];
    int used = snprintf(text, DZ_PICKLE_TEXT, "%s", dz_pickle_kind_name(v));
    if (!is_counted(v->kind)) return text;
    used += snprintf(text + used, DZ_PICKLE_TEXT - (size_t)used, " of %" PRIu32, v->count);
    if (v->tensors)
        snprintf(text + used, DZ_PICKLE_TEXT - (size_t)used, " with %" PRIu32 " tensor%s", v->tensors, v->tensors == 1 ? "" : "s");
    return text;
}

char *dz_pickle_key(const dz_pickle *p, uint32_t key, char text[DZ_PICKLE_TEXT]) {
    const dz_pickle_value *v = &p->values[key];
    if (v->kind == DZ_PICKLE_STR) return dz_pickle_text(p->bytes + v->u.at, v->count, text);
    snprintf(text, DZ_PICKLE_TEXT, "(%s)", dz_pickle_kind_name(v));
    return text;
}

/* The pickle is wrong at the opcode at work. */
static dz_rc wrong(machine *m, const char *what) {
    char op[8];
    return dz_fail(m->err, DZ_EFAIL, "%s: byte %zu: %s: %s", m->name, m->at, dz_opcode_name(m->opcode, op), what);
}

/* Room for one more element of an array that has a limit. */
static dz_rc room(machine *m, void **array, size_t *cap, size_t count, size_t size, size_t most) {
    if (count >= most) return dz_fail(m->err, DZ_EFAIL, "%s: byte %zu: more than the %zu objects that are allowed", m->name, m->at, most);
    return dz_grow(array, cap, count + 1, size, m->err);
}

static dz_rc push(machine *m, uint32_t value) {
    if (room(m, (void **)&m->stack, &m->stack_cap, m->depth, sizeof *m->stack, DZ_PICKLE_OBJECTS) == DZ_OK) m->stack[m->depth++] = value;
    return m->err->rc;
}

static dz_rc push_new(machine *m, dz_pickle_value value) {
    dz_pickle *p = &m->p;
    if (room(m, (void **)&p->values, &p->values_cap, p->nvalues, sizeof *p->values, DZ_PICKLE_OBJECTS) != DZ_OK) return m->err->rc;
    p->values[p->nvalues++] = value;
    return push(m, (uint32_t)(p->nvalues - 1));
}

/* The topmost value comes off; not below the last mark. NO_VALUE with the error set when there is none. */
static uint32_t pop(machine *m) {
    if (m->depth > (m->nmarks ? m->marks[m->nmarks - 1] : 0)) return m->stack[--m->depth];
    wrong(m, "the stack is empty");
    return NO_VALUE;
}

/* The topmost value stays. */
static uint32_t top(machine *m) {
    uint32_t value = pop(m);
    if (value != NO_VALUE) m->depth++;
    return value;
}

/* Opens the values above the last mark: `*first` is their place in the stack; the mark is gone. */
static dz_rc to_mark(machine *m, size_t *first) {
    if (m->nmarks == 0) return wrong(m, "no mark");
    *first = m->marks[--m->nmarks];
    return DZ_OK;
}

static const dz_pickle_value *value_of(const machine *m, uint32_t value) { return &m->p.values[value]; }
static int is_kind(const machine *m, uint32_t value, dz_pickle_kind kind) { return m->p.values[value].kind == kind; }

/* `member` goes into `container`. */
static dz_rc deepen(machine *m, dz_pickle_value *container, uint32_t member) {
    const dz_pickle_value *v = value_of(m, member);
    int depth = (is_container(v->kind) ? v->depth : 0) + 1;
    if (depth > DZ_PICKLE_DEPTH)
        return dz_fail(m->err, DZ_EFAIL, "%s: byte %zu: containers are nested deeper than the %d that are allowed", m->name, m->at,
                       DZ_PICKLE_DEPTH);
    if (depth > container->depth) container->depth = (uint8_t)depth;
    container->tensors = v->tensors > UINT32_MAX - container->tensors ? UINT32_MAX : container->tensors + v->tensors;
    return DZ_OK;
}

/* A tuple of the stack's values from `first` up takes their place. */
static dz_rc make_tuple(machine *m, size_t first) {
    dz_pickle *p = &m->p;
    dz_pickle_value tuple = {.kind = DZ_PICKLE_TUPLE, .depth = 1, .count = (uint32_t)(m->depth - first), .u.at = p->nmembers};
    for (size_t i = first; i < m->depth; i++) {
        if (room(m, (void **)&p->members, &p->members_cap, p->nmembers, sizeof *p->members, DZ_PICKLE_OBJECTS) != DZ_OK ||
            deepen(m, &tuple, m->stack[i]) != DZ_OK)
            return m->err->rc;
        p->members[p->nmembers++] = m->stack[i];
    }
    m->depth = first;
    return push_new(m, tuple);
}

static dz_rc small_tuple(machine *m, size_t count) {
    if (m->depth - (m->nmarks ? m->marks[m->nmarks - 1] : 0) < count) return wrong(m, "the stack is empty");
    return make_tuple(m, m->depth - count);
}

/* The stack's values from `first` up are members of the list below them. Nobody asks what they are: only their number is kept. */
static dz_rc append(machine *m, size_t first) {
    size_t count = m->depth - first;
    m->depth = first;
    uint32_t list = top(m);
    if (list == NO_VALUE) return m->err->rc;
    if (!is_kind(m, list, DZ_PICKLE_LIST) && !is_kind(m, list, DZ_PICKLE_OBJECT)) return wrong(m, "appends to what is no list");
    dz_pickle_value *v = &m->p.values[list];
    for (size_t i = 0; i < count; i++) {
        if (deepen(m, v, m->stack[first + i]) != DZ_OK) return m->err->rc;
    }
    if (count > UINT32_MAX - v->count) return wrong(m, "the list is too long");
    v->count += (uint32_t)count;
    return DZ_OK;
}

/* The stack's values from `first` up are keys and values for the dict below them. */
static dz_rc set_items(machine *m, size_t first) {
    dz_pickle *p = &m->p;
    size_t count = m->depth - first;
    if (count % 2 != 0) return wrong(m, "a key without a value");
    m->depth = first;
    uint32_t dict = top(m);
    if (dict == NO_VALUE) return m->err->rc;
    if (!is_kind(m, dict, DZ_PICKLE_DICT)) return wrong(m, "sets an item of what is no dict");
    for (size_t i = 0; i < count; i += 2) {
        if (room(m, (void **)&p->items, &p->items_cap, p->nitems, sizeof *p->items, DZ_PICKLE_OBJECTS) != DZ_OK ||
            deepen(m, &p->values[dict], m->stack[first + i]) != DZ_OK || deepen(m, &p->values[dict], m->stack[first + i + 1]) != DZ_OK)
            return m->err->rc;
        p->items[p->nitems++] = (dz_pickle_item){.dict = dict, .key = m->stack[first + i], .value = m->stack[first + i + 1]};
        p->values[dict].count++;
    }
    return DZ_OK;
}

static dz_rc push_string(machine *m, uint64_t len) {
    dz_pickle_value v = {.kind = DZ_PICKLE_STR, .u.at = m->in.pos};
    if (!dz_view_bytes(&m->in, len)) return DZ_OK; /* reported by the caller */
    v.count = (uint32_t)len;
    return push_new(m, v);
}

/* Little endian, two's complement, `len` bytes. */
static dz_rc push_long(machine *m, uint64_t len) {
    dz_pickle_value v = {.kind = DZ_PICKLE_INT};
    const uint8_t *bytes = dz_view_bytes(&m->in, len);
    if (!bytes) return DZ_OK; /* reported by the caller */
    if (len > 8) {
        v.count = 1;
    } else if (len > 0) {
        uint64_t bits = bytes[len - 1] & 0x80 ? UINT64_MAX : 0;
        for (uint64_t i = len; i-- > 0;) bits = bits << 8 | bytes[i];
        v.u.number = (int64_t)bits;
    }
    return push_new(m, v);
}

static dz_rc push_int(machine *m, int64_t number) { return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_INT, .u.number = number}); }

static dz_rc push_global(machine *m, const uint8_t *module, size_t module_len, const uint8_t *name, size_t name_len) {
    int number = dz_global_find(module, module_len, name, name_len);
    if (number < 0) {
        char a[DZ_PICKLE_TEXT], b[DZ_PICKLE_TEXT];
        return dz_fail(m->err, DZ_EFAIL,
                       "%s: global '%s.%s' is not allowed, since nothing is run: load the file in Python and save its state dict alone",
                       m->name, dz_pickle_text(module, module_len, a), dz_pickle_text(name, name_len, b));
    }
    return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_GLOBAL, .global = (uint8_t)number});
}

/* A line of text, without its end. */
static const uint8_t *line(machine *m, size_t *len) {
    const uint8_t *begin = m->in.data + m->in.pos, *end = memchr(begin, '\n', m->in.len - m->in.pos);
    *len = end ? (size_t)(end - begin) : 0;
    dz_view_bytes(&m->in, end ? *len + 1 : UINT64_MAX);
    return end ? begin : NULL;
}

static dz_rc global(machine *m) {
    size_t module_len, name_len = 0;
    const uint8_t *module = line(m, &module_len), *name = module ? line(m, &name_len) : NULL;
    return name ? push_global(m, module, module_len, name, name_len) : DZ_OK; /* reported by the caller */
}

static dz_rc stack_global(machine *m) {
    uint32_t name = pop(m), module = name == NO_VALUE ? NO_VALUE : pop(m);
    if (module == NO_VALUE) return m->err->rc;
    if (!is_kind(m, name, DZ_PICKLE_STR) || !is_kind(m, module, DZ_PICKLE_STR)) return wrong(m, "a name that is no string");
    const dz_pickle_value *a = value_of(m, module), *b = value_of(m, name);
    return push_global(m, m->p.bytes + a->u.at, a->count, m->p.bytes + b->u.at, b->count);
}

static int string_is(const machine *m, uint32_t value, const char *text) {
    const dz_pickle_value *v = value_of(m, value);
    return v->kind == DZ_PICKLE_STR && v->count == strlen(text) && memcmp(m->p.bytes + v->u.at, text, v->count) == 0;
}

static int is_global(const machine *m, uint32_t value, dz_global_role role) {
    return is_kind(m, value, DZ_PICKLE_GLOBAL) && dz_global_at(value_of(m, value)->global)->role == role;
}

/* A count or offset: an int that is not negative. */
static int get_size(const machine *m, uint32_t value, uint64_t *size) {
    const dz_pickle_value *v = value_of(m, value);
    if (v->kind != DZ_PICKLE_INT || v->count != 0 || v->u.number < 0) return 0;
    *size = (uint64_t)v->u.number;
    return 1;
}

/* ('storage', type, key, location, count) */
static dz_rc storage(machine *m) {
    dz_pickle *p = &m->p;
    dz_pickle_storage s = {0};
    uint32_t id = pop(m);
    if (id == NO_VALUE) return m->err->rc;
    const dz_pickle_value *v = value_of(m, id);
    if (v->kind != DZ_PICKLE_TUPLE || v->count != 5) return wrong(m, "not ('storage', type, key, location, count)");
    const uint32_t *part = &p->members[v->u.at];
    if (!string_is(m, part[0], "storage") || !is_global(m, part[1], DZ_GLOBAL_STORAGE) || !is_kind(m, part[2], DZ_PICKLE_STR) ||
        !get_size(m, part[4], &s.count))
        return wrong(m, "not ('storage', type, key, location, count)");
    s.key = part[2];
    uint8_t type = value_of(m, part[1])->global;
    s.dtype = dz_global_at(type)->dtype;
    if (room(m, (void **)&p->storages, &p->storages_cap, p->nstorages, sizeof *p->storages, DZ_PICKLE_OBJECTS) != DZ_OK) return m->err->rc;
    p->storages[p->nstorages++] = s;
    return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_STORAGE, .global = type, .u.at = p->nstorages - 1});
}

/* A value of which only its depth and its tensors are known, and what its global says. */
static dz_rc push_opaque(machine *m, dz_pickle_kind kind, uint8_t of_global, const dz_pickle_value *args) {
    dz_pickle_value v = {.kind = (uint8_t)kind, .depth = 1, .global = of_global, .tensors = kind == DZ_PICKLE_OTHER_TENSOR};
    if (args && is_container(args->kind)) {
        v.depth = args->depth > 0 ? args->depth : 1;
        if (kind == DZ_PICKLE_OBJECT) v.tensors = args->tensors;
    }
    return push_new(m, v);
}

/* Conjugated and negated views: {'conj': True}, {'neg': True}. */
static dz_rc other_view(machine *m) {
    static const char of[] = "torch._view", name[] = "_";
    return push_opaque(m, DZ_PICKLE_OTHER_TENSOR,
                       (uint8_t)dz_global_find((const uint8_t *)of, sizeof of - 1, (const uint8_t *)name, sizeof name - 1), NULL);
}

/* (storage, first, size, stride, requires_grad, hooks[, metadata]); in version 3 with a dtype before the metadata, in version 1 without
 * what follows the stride. */
static dz_rc tensor(machine *m, const dz_pickle_value *args, int version) {
    dz_pickle *p = &m->p;
    dz_pickle_tensor t = {0};
    const uint32_t least = version == 3 ? 7 : version == 2 ? 6 : 4;
    if (args->count < least || args->count > least + (version > 1)) return wrong(m, "the parts of a tensor are not as torch writes them");
    const uint32_t *part = &p->members[args->u.at];
    if (!is_kind(m, part[0], DZ_PICKLE_STORAGE) || !get_size(m, part[1], &t.first) || !is_kind(m, part[2], DZ_PICKLE_TUPLE) ||
        !is_kind(m, part[3], DZ_PICKLE_TUPLE))
        return wrong(m, "the parts of a tensor are not as torch writes them");
    if (args->count > least && !is_kind(m, part[least], DZ_PICKLE_NONE)) return other_view(m);
    if (version == 3 && !is_global(m, part[6], DZ_GLOBAL_DTYPE)) return wrong(m, "a tensor without a known dtype");
    const dz_pickle_value *size = value_of(m, part[2]), *stride = value_of(m, part[3]);
    if (size->count != stride->count || size->count > DZ_MAX_NDIM) return wrong(m, "a tensor with too many dimensions");
    t.storage = (uint32_t)value_of(m, part[0])->u.at;
    t.ndim = size->count;
    uint8_t type = value_of(m, version == 3 ? part[6] : part[0])->global;
    if (dz_global_at(type)->what) return push_opaque(m, DZ_PICKLE_OTHER_TENSOR, type, NULL);
    t.dtype = dz_global_at(type)->dtype;
    if (!t.dtype) t.dtype = dz_dtype_name(DZ_U8);
    for (uint32_t d = 0; d < t.ndim; d++) {
        if (!get_size(m, p->members[size->u.at + d], &t.shape[d]) || !get_size(m, p->members[stride->u.at + d], &t.stride[d]))
            return wrong(m, "a tensor's size or stride is no count");
    }
    if (room(m, (void **)&p->tensors, &p->tensors_cap, p->ntensors, sizeof *p->tensors, DZ_PICKLE_TENSORS) != DZ_OK) return m->err->rc;
    p->tensors[p->ntensors++] = t;
    return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_TENSOR, .tensors = 1, .u.at = p->ntensors - 1});
}

static dz_rc call(machine *m, uint32_t callee, uint32_t args);

/* (function, type, arguments, state): what the function gives, of another type, with attributes, which are not kept. */
static dz_rc from_type(machine *m, const dz_pickle_value *args) {
    if (args->count != 4) return wrong(m, "the parts of a tensor are not as torch writes them");
    const uint32_t *part = &m->p.members[args->u.at];
    if (!is_kind(m, part[0], DZ_PICKLE_GLOBAL) || !is_kind(m, part[1], DZ_PICKLE_GLOBAL) || !is_kind(m, part[2], DZ_PICKLE_TUPLE) ||
        is_global(m, part[0], DZ_GLOBAL_FROM_TYPE))
        return wrong(m, "the parts of a tensor are not as torch writes them");
    uint8_t function = value_of(m, part[0])->global, type = value_of(m, part[1])->global;
    if (dz_global_at(type)->role == DZ_GLOBAL_TENSOR_TYPE) return call(m, part[0], part[2]);
    uint8_t of = dz_global_at(type)->role == DZ_GLOBAL_OTHER_TENSOR ? type : function;
    if (dz_global_at(of)->role != DZ_GLOBAL_OTHER_TENSOR) return wrong(m, "a tensor of an unknown class");
    return push_opaque(m, DZ_PICKLE_OTHER_TENSOR, of, NULL);
}

/* What calling a known function with these arguments comes to, without calling it. */
static dz_rc call(machine *m, uint32_t callee, uint32_t args) {
    const dz_pickle_value *a = value_of(m, args);
    uint8_t number = value_of(m, callee)->global;
    uint32_t first = a->count > 0 ? m->p.members[a->u.at] : NO_VALUE;
    switch (dz_global_at(number)->role) {
        case DZ_GLOBAL_DICT: /* Counter(dict), defaultdict(type) */
            if (first != NO_VALUE && is_kind(m, first, DZ_PICKLE_DICT)) return push(m, first);
            if (first != NO_VALUE && !is_global(m, first, DZ_GLOBAL_PLAIN)) return wrong(m, "an OrderedDict made from arguments");
            return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_DICT, .depth = 1});
        case DZ_GLOBAL_TENSOR_V1: return tensor(m, a, 1);
        case DZ_GLOBAL_TENSOR_V2: return tensor(m, a, 2);
        case DZ_GLOBAL_TENSOR_V3: return tensor(m, a, 3);
        case DZ_GLOBAL_PARAMETER: /* (tensor, requires_grad, hooks[, state]) */
            if (a->count < 3 || a->count > 4 || !dz_pickle_is_tensor(value_of(m, first))) return wrong(m, "a parameter that is no tensor");
            return push(m, first);
        case DZ_GLOBAL_TENSOR_TYPE: /* Parameter(tensor, requires_grad) */
            if (first == NO_VALUE || !dz_pickle_is_tensor(value_of(m, first))) return wrong(m, "a parameter that is no tensor");
            return push(m, first);
        case DZ_GLOBAL_FROM_TYPE: return from_type(m, a);
        case DZ_GLOBAL_PLAIN: return push_opaque(m, DZ_PICKLE_OBJECT, number, a);
        case DZ_GLOBAL_OTHER_TENSOR: return push_opaque(m, DZ_PICKLE_OTHER_TENSOR, number, a);
        case DZ_GLOBAL_STORAGE:
        case DZ_GLOBAL_DTYPE: break;
    }
    return wrong(m, "calls a type");
}

static dz_rc reduce(machine *m) {
    uint32_t args = pop(m), callee = args == NO_VALUE ? NO_VALUE : pop(m);
    if (callee == NO_VALUE) return m->err->rc;
    if (!is_kind(m, args, DZ_PICKLE_TUPLE) || !is_kind(m, callee, DZ_PICKLE_GLOBAL)) return wrong(m, "calls what is no known function");
    return call(m, callee, args);
}

/* Attributes: torch hangs the versions of modules (_metadata) on a dict. No value of the dict, nothing to keep. */
static dz_rc build(machine *m) {
    uint32_t state = pop(m), object = state == NO_VALUE ? NO_VALUE : top(m);
    if (object == NO_VALUE) return m->err->rc;
    const dz_pickle_value *v = value_of(m, object);
    if (v->kind == DZ_PICKLE_OBJECT || v->kind == DZ_PICKLE_OTHER_TENSOR) return deepen(m, &m->p.values[object], state);
    if (!is_kind(m, state, DZ_PICKLE_DICT) || v->kind != DZ_PICKLE_DICT) return wrong(m, "sets the state of what is no dict");
    return DZ_OK;
}

static dz_rc push_plain(machine *m, const char *module, const char *name) {
    int number = dz_global_find((const uint8_t *)module, strlen(module), (const uint8_t *)name, strlen(name));
    return push_opaque(m, DZ_PICKLE_OBJECT, (uint8_t)number, NULL);
}

static dz_rc push_bytes(machine *m, uint64_t len, const char *type) {
    return dz_view_bytes(&m->in, len) ? push_plain(m, "builtins", type) : DZ_OK; /* cut short: reported by the caller */
}

static dz_rc put(machine *m, uint64_t index) {
    if (m->in.bad) return DZ_OK; /* reported by the caller */
    uint32_t value = top(m);
    if (value == NO_VALUE) return m->err->rc;
    if (index >= DZ_PICKLE_OBJECTS) return wrong(m, "a memo number that is too large");
    if (index >= m->nmemo) { /* numbers come in order; one that leaps is filled up, within the limit */
        if (dz_grow((void **)&m->memo, &m->memo_cap, (size_t)index + 1, sizeof *m->memo, m->err) != DZ_OK) return m->err->rc;
        while (m->nmemo <= index) m->memo[m->nmemo++] = NO_VALUE;
    }
    m->memo[index] = value;
    return DZ_OK;
}

static dz_rc get(machine *m, uint64_t index) {
    if (m->in.bad) return DZ_OK; /* reported by the caller */
    if (index >= m->nmemo || m->memo[index] == NO_VALUE) return wrong(m, "a memo number that was never set");
    return push(m, m->memo[index]);
}

static dz_rc mark(machine *m) {
    if (room(m, (void **)&m->marks, &m->marks_cap, m->nmarks, sizeof *m->marks, DZ_PICKLE_DEPTH) == DZ_OK) m->marks[m->nmarks++] = m->depth;
    return m->err->rc;
}

static dz_rc protocol(machine *m) {
    uint8_t version = dz_view_u8(&m->in);
    if (m->in.bad || (version >= PROTOCOL_LEAST && version <= PROTOCOL_MOST)) return DZ_OK;
    return dz_fail(m->err, DZ_EFAIL, "%s: pickle protocol %u is not supported (%d to %d are)", m->name, version, PROTOCOL_LEAST,
                   PROTOCOL_MOST);
}

static dz_rc frame(machine *m) {
    uint64_t len = dz_view_u64(&m->in);
    if (!m->in.bad && len > m->in.len - m->in.pos) m->in.bad = 1;
    return DZ_OK;
}

static uint16_t get_u16(dz_view *view) {
    uint16_t low = dz_view_u8(view);
    return (uint16_t)(low | dz_view_u8(view) << 8);
}

/* One opcode. A cut-short argument only sets in.bad: the caller tells it. */
static dz_rc step(machine *m) {
    size_t first = 0;
    char op[8];
    switch (m->opcode) {
        case 0x80: return protocol(m);
        case 0x95: return frame(m);
        case '(': return mark(m);
        case 'N': return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_NONE});
        case 0x88: return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_BOOL, .u.number = 1});
        case 0x89: return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_BOOL});
        case 'J': return push_int(m, (int32_t)dz_view_u32(&m->in));
        case 'K': return push_int(m, dz_view_u8(&m->in));
        case 'M': return push_int(m, get_u16(&m->in));
        case 0x8a: return push_long(m, dz_view_u8(&m->in));
        case 0x8b: return push_long(m, dz_view_u32(&m->in));
        case 'G': return dz_view_bytes(&m->in, 8) ? push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_FLOAT}) : DZ_OK;
        case 'X': return push_string(m, dz_view_u32(&m->in));
        case 0x8c: return push_string(m, dz_view_u8(&m->in));
        case 0x8d: return push_string(m, dz_view_u64(&m->in));
        case 'C': return push_bytes(m, dz_view_u8(&m->in), "bytes");
        case 'B': return push_bytes(m, dz_view_u32(&m->in), "bytes");
        case 0x8e: return push_bytes(m, dz_view_u64(&m->in), "bytes");
        case 0x96: return push_bytes(m, dz_view_u64(&m->in), "bytearray");
        case 'U': return push_string(m, dz_view_u8(&m->in));
        case 0x8f: return push_plain(m, "builtins", "set");
        case '}': return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_DICT, .depth = 1});
        case ']': return push_new(m, (dz_pickle_value){.kind = DZ_PICKLE_LIST, .depth = 1});
        case ')': return make_tuple(m, m->depth);
        case 0x85: return small_tuple(m, 1);
        case 0x86: return small_tuple(m, 2);
        case 0x87: return small_tuple(m, 3);
        case 't': return to_mark(m, &first) == DZ_OK ? make_tuple(m, first) : m->err->rc;
        case 'a':
            if (pop(m) == NO_VALUE) return m->err->rc;
            m->depth++;
            return append(m, m->depth - 1);
        case 0x90: /* to a set */
        case 'e': return to_mark(m, &first) == DZ_OK ? append(m, first) : m->err->rc;
        case 's':
            if (pop(m) == NO_VALUE || pop(m) == NO_VALUE) return m->err->rc;
            m->depth += 2;
            return set_items(m, m->depth - 2);
        case 'u': return to_mark(m, &first) == DZ_OK ? set_items(m, first) : m->err->rc;
        case 'c': return global(m);
        case 0x93: return stack_global(m);
        case 'Q': return storage(m);
        case 'R':
        case 0x81: return reduce(m); /* cls.__new__(cls, *args) */
        case 'b': return build(m);
        case 'q': return put(m, dz_view_u8(&m->in));
        case 'r': return put(m, dz_view_u32(&m->in));
        case 0x94: return put(m, m->nmemo);
        case 'h': return get(m, dz_view_u8(&m->in));
        case 'j': return get(m, dz_view_u32(&m->in));
        default: return dz_fail(m->err, DZ_EFAIL, "%s: byte %zu: opcode %s is not allowed", m->name, m->at, dz_opcode_name(m->opcode, op));
    }
}

static dz_rc run(machine *m) {
    for (;;) {
        m->at = m->in.pos;
        m->opcode = dz_view_u8(&m->in);
        if (!m->in.bad && m->opcode == '.') break;
        if (!m->in.bad && step(m) != DZ_OK) return m->err->rc;
        if (m->in.bad)
            return dz_fail(m->err, DZ_EFAIL, "%s: cut short: its %zu bytes end within the opcode at byte %zu", m->name, m->in.len, m->at);
    }
    if (m->depth != 1 || m->nmarks != 0) return wrong(m, "the stack does not hold one value");
    if (m->in.pos != m->in.len) return dz_fail(m->err, DZ_EFAIL, "%s: %zu bytes follow its end", m->name, m->in.len - m->in.pos);
    m->p.root = m->stack[0];
    return DZ_OK;
}

dz_rc dz_unpickle(const char *name, const uint8_t *bytes, size_t len, dz_pickle *out, dz_error *err) {
    machine m = {.name = name, .in = {.data = bytes, .len = len}, .p = {.bytes = bytes}, .err = err};
    *out = (dz_pickle){0};
    if (len > DZ_PICKLE_MAX)
        dz_fail(err, DZ_EFAIL, "%s: %zu bytes are more than the %llu allowed", name, len, (unsigned long long)DZ_PICKLE_MAX);
    else if (run(&m) == DZ_OK) {
        *out = m.p;
        m.p = (dz_pickle){0};
    }
    dz_pickle_free(&m.p);
    free(m.stack);
    free(m.marks);
    free(m.memo);
    return err->rc;
}
