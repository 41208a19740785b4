#include "config/yaml.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#define MOST_KEYS 32 /* of a table */
#define MOST_DEPTH 64

/* One document on its way: each node is checked against the table, and what is right goes into the struct. */
typedef struct reading {
    const char *path;
    yaml_document_t *document;
    int no_memory;
    size_t nitems;
    dz_yaml *out;
    dz_error *err;
} reading;

int dz_yaml_is_null(const char *text) {
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (strcmp(text, words[i]) == 0) return 1;
    }
    return 0;
}

int dz_yaml_boolean(const char *text) {
    static const char *const words[] = {"false", "False", "FALSE", "no",  "No",  "NO",  "off", "Off", "OFF",
                                        "true",  "True",  "TRUE",  "yes", "Yes", "YES", "on",  "On",  "ON"};
    const size_t n = sizeof words / sizeof *words;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(text, words[i]) == 0) return i >= n / 2;
    }
    return -1;
}

static void problem(reading *r, int line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
static void problem(reading *r, int line, const char *fmt, ...) {
    char text[1024];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    dz_fail_more(r->err, DZ_EUSAGE, "%s:%d: %s", r->path, line, text);
}

static int line_of(yaml_mark_t mark) { return (int)mark.line + 1; }

/* Returns its number. */
static size_t add_place(reading *r, size_t item, const char *key, int line) {
    dz_yaml *y = r->out;
    dz_error err = {0};
    if (dz_grow((void **)&y->places, &y->cap, y->nplaces + 1, sizeof *y->places, &err) != DZ_OK)
        r->no_memory = 1;
    else
        y->places[y->nplaces++] = (dz_yaml_place){.item = item, .key = key, .line = line};
    return y->nplaces - 1;
}

static const char *known_keys(const dz_yaml_table *table, char text[512]) {
    text[0] = '\0';
    for (const dz_yaml_field *f = table->fields; f->key; f++)
        snprintf(text + strlen(text), 512 - strlen(text), "%s%s", text[0] ? ", " : "", f->key);
    return text;
}

static int has_no_value(const yaml_node_t *node) {
    return node->type == YAML_SCALAR_NODE && node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
           dz_yaml_is_null((const char *)node->data.scalar.value);
}

/* The number of the key's field; -1: unknown, and reported. */
static int find_field(reading *r, const yaml_node_t *key, const dz_yaml_table *table) {
    const char *name = NULL;
    if (key->type == YAML_SCALAR_NODE && strlen((const char *)key->data.scalar.value) == key->data.scalar.length)
        name = (const char *)key->data.scalar.value;
    char known[512];
    for (int f = 0; name && table->fields[f].key; f++) {
        if (strcmp(table->fields[f].key, name) == 0) return f;
    }
    problem(r, line_of(key->start_mark), "unknown key '%.200s' (the keys are %s)", name ? name : "...", known_keys(table, known));
    return -1;
}

/* What a value must be by its field; NULL: it is. */
static const char *misfit(const yaml_node_t *node, dz_yaml_kind kind) {
    if (kind == DZ_YAML_LIST) return node->type == YAML_SEQUENCE_NODE ? NULL : "a list";
    if (node->type != YAML_SCALAR_NODE) return "a single value";
    return memchr(node->data.scalar.value, '\0', node->data.scalar.length) ? "a text without a zero byte" : NULL;
}

static void take_value(reading *r, const dz_yaml_field *field, size_t item, int line, const yaml_node_t *value, void *member);

/* A mapping's pairs that fit the table, into `data`: the table bounds the depth, whatever aliases the document has. */
static void take_mapping(reading *r, size_t item, const yaml_node_t *mapping, const dz_yaml_table *table, void *data) {
    int lines[MOST_KEYS] = {0};
    for (const yaml_node_pair_t *pair = mapping->data.mapping.pairs.start; pair < mapping->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(r->document, pair->key), *value = yaml_document_get_node(r->document, pair->value);
        int line = line_of(key->start_mark), f = find_field(r, key, table);
        if (f < 0) continue;
        assert(f < MOST_KEYS);
        const dz_yaml_field *field = &table->fields[f];
        if (lines[f])
            problem(r, line, "'%s' is already set on line %d", field->key, lines[f]);
        else if (!has_no_value(value))
            take_value(r, field, item, line, value, (char *)data + field->member);
        if (!lines[f]) lines[f] = line;
    }
}

/* `place`: of the list. */
static void take_list(reading *r, size_t place, const dz_yaml_field *field, const yaml_node_t *node, dz_yaml_list *list) {
    const yaml_node_item_t *begin = node->data.sequence.items.start, *end = node->data.sequence.items.top;
    const dz_yaml_table *table = field->entry;
    dz_error none = {0};
    char known[512];
    if (!(list->items = dz_alloc((size_t)(end - begin), table->size, &none))) r->no_memory = 1;
    for (const yaml_node_item_t *at = begin; at < end && !r->no_memory; at++) {
        const yaml_node_t *entry = yaml_document_get_node(r->document, *at);
        int line = line_of(entry->start_mark);
        if (entry->type != YAML_MAPPING_NODE) {
            problem(r, line, "an entry of '%s' must be a mapping with the keys %s", field->key, known_keys(table, known));
            r->out->places[place].refused = 1;
            continue;
        }
        add_place(r, ++r->nitems, NULL, line);
        take_mapping(r, r->nitems, entry, table, (char *)list->items + list->n++ * table->size);
    }
}

static void take_value(reading *r, const dz_yaml_field *field, size_t item, int line, const yaml_node_t *value, void *member) {
    const char *wanted = misfit(value, field->kind);
    size_t place = add_place(r, item, field->key, line);
    dz_error none = {0};
    if (r->no_memory) return;
    if (wanted) {
        problem(r, line, "'%s' must be %s", field->key, wanted);
        r->out->places[place].refused = 1;
    } else if (field->kind == DZ_YAML_LIST) {
        take_list(r, place, field, value, member);
    } else {
        char *text = dz_strndup((const char *)value->data.scalar.value, value->data.scalar.length, &none);
        if (!text) r->no_memory = 1;
        memcpy(member, &text, sizeof text);
    }
}

static void take_document(reading *r) {
    const dz_yaml_table *table = r->out->table;
    const yaml_node_t *root = yaml_document_get_root_node(r->document);
    char known[512];
    dz_error none = {0};
    if (!root || has_no_value(root))
        dz_fail_more(r->err, DZ_EUSAGE, "%s: is empty", r->path);
    else if (root->type != YAML_MAPPING_NODE)
        problem(r, line_of(root->start_mark), "must be a mapping with the keys %s", known_keys(table, known));
    else if ((r->out->data = dz_alloc(1, table->size, &none)))
        take_mapping(r, 0, root, table, r->out->data);
    else
        r->no_memory = 1;
}

/* Where the parser stopped, and why. A fault of the encoding has a byte for its place. */
static void not_yaml(reading *r, const yaml_parser_t *parser, const char *text, size_t len) {
    int line = line_of(parser->problem_mark);
    if (parser->error == YAML_MEMORY_ERROR) {
        r->no_memory = 1;
        return;
    }
    if (parser->error == YAML_READER_ERROR) {
        line = 1;
        for (size_t i = 0; i < len && i < parser->problem_offset; i++) line += text[i] == '\n';
    }
    problem(r, line, "not YAML: %s%s%s%s", parser->problem ? parser->problem : "cannot be read", parser->context ? " (" : "",
            parser->context ? parser->context : "", parser->context ? ")" : "");
}

/* The line where nesting passes MOST_DEPTH, 0: nowhere. libyaml's time goes with the square of the depth. */
static int too_deep(const char *text, size_t len) {
    yaml_parser_t parser;
    int depth = 0, line = 0;
    if (!yaml_parser_initialize(&parser)) return 0;
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    for (int more = 1; more && !line;) {
        yaml_event_t event;
        if (!yaml_parser_parse(&parser, &event)) break; /* reported when it is loaded */
        more = event.type != YAML_STREAM_END_EVENT;
        depth += event.type == YAML_SEQUENCE_START_EVENT || event.type == YAML_MAPPING_START_EVENT;
        depth -= event.type == YAML_SEQUENCE_END_EVENT || event.type == YAML_MAPPING_END_EVENT;
        if (depth > MOST_DEPTH) line = line_of(event.start_mark);
        yaml_event_delete(&event);
    }
    yaml_parser_delete(&parser);
    return line;
}

/* The first document, and that there is no other. */
static void take_stream(reading *r, const char *text, size_t len) {
    yaml_parser_t parser;
    yaml_document_t first, second;
    int deep = too_deep(text, len);
    if (deep) {
        problem(r, deep, "lists and mappings more than %d deep", MOST_DEPTH);
        return;
    }
    if (!yaml_parser_initialize(&parser)) {
        r->no_memory = 1;
        return;
    }
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
    if (yaml_parser_load(&parser, &first)) {
        r->document = &first;
        take_document(r);
        int any = yaml_document_get_root_node(&first) != NULL;
        yaml_document_delete(&first);
        if (!any) { /* the stream has ended */
        } else if (!yaml_parser_load(&parser, &second)) {
            not_yaml(r, &parser, text, len);
        } else {
            if (yaml_document_get_root_node(&second)) problem(r, line_of(second.start_mark), "a second document begins: one is allowed");
            yaml_document_delete(&second);
        }
    } else {
        not_yaml(r, &parser, text, len);
    }
    yaml_parser_delete(&parser);
}

static int by_item(const void *x, const void *y) {
    const dz_yaml_place *a = x, *b = y;
    if (a->item != b->item) return a->item < b->item ? -1 : 1;
    return a->line < b->line ? -1 : a->line > b->line;
}

static void free_struct(void *data, const dz_yaml_table *table) {
    for (const dz_yaml_field *f = table->fields; f->key; f++) {
        void *member = (char *)data + f->member;
        if (f->kind == DZ_YAML_TEXT) {
            char *text;
            memcpy(&text, member, sizeof text);
            free(text);
            continue;
        }
        dz_yaml_list *list = member;
        for (size_t i = 0; i < list->n; i++) free_struct((char *)list->items + i * f->entry->size, f->entry);
        free(list->items);
    }
}

void dz_yaml_free(dz_yaml *y) {
    if (y->data) free_struct(y->data, y->table);
    free(y->data);
    free(y->places);
    *y = (dz_yaml){0};
}

dz_rc dz_yaml_load(const char *path, const char *text, size_t len, const dz_yaml_table *table, dz_yaml *out, dz_error *err) {
    reading r = {.path = path, .out = out, .err = err};
    *out = (dz_yaml){.table = table};
    take_stream(&r, text, len);
    if (r.no_memory) {
        dz_yaml_free(out);
        return dz_fail_more(err, DZ_ENOMEM, "%s: out of memory", path);
    }
    if (out->nplaces) qsort(out->places, out->nplaces, sizeof *out->places, by_item);
    return err->rc;
}

const dz_yaml_place *dz_yaml_find(const dz_yaml *y, size_t item, const char *key) {
    size_t low = 0, high = y->nplaces; /* the first place of the item */
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (y->places[mid].item < item)
            low = mid + 1;
        else
            high = mid;
    }
    for (; low < y->nplaces && y->places[low].item == item; low++) {
        const char *has = y->places[low].key;
        if (has == key || (has && key && strcmp(has, key) == 0)) return &y->places[low];
    }
    return NULL;
}

int dz_yaml_line(const dz_yaml *y, size_t item, const char *key) {
    const dz_yaml_place *place = dz_yaml_find(y, item, key);
    return place ? place->line : 0;
}

/* Whether a character may stand for itself between double quotes: no control character, line break of YAML's or byte order mark. */
static int is_plain(uint32_t c) {
    if (c == '"' || c == '\\' || c == 0x2028 || c == 0x2029 || c == 0xfeff) return 0;
    return (c >= 0x20 && c < 0x7f) || (c >= 0xa0 && c <= 0xfffd) || c >= 0x10000;
}

dz_rc dz_yaml_quote(dz_buf *out, const char *text, dz_error *err) {
    dz_buf_put(out, "\"", 1, err);
    for (const uint8_t *at = (const uint8_t *)text; *at;) {
        const uint8_t *begin = at;
        uint32_t c = *at++;
        int more = c >= 0xf0 ? 3 : c >= 0xe0 ? 2 : c >= 0xc0 ? 1 : 0;
        if (more) c &= 0x3fu >> more;
        for (; more && (*at & 0xc0) == 0x80; more--) c = c << 6 | (*at++ & 0x3fu);
        if (is_plain(c))
            dz_buf_put(out, begin, (size_t)(at - begin), err);
        else
            dz_buf_line(out, err, c == '"' || c == '\\' ? "\\%c" : "\\u%04X", (unsigned)c);
    }
    return dz_buf_put(out, "\"", 1, err);
}
