/* YAML into structs: libyaml parses, a table of keys says which members they fill. */
#ifndef DZ_CONFIG_YAML_H
#define DZ_CONFIG_YAML_H

#include <stddef.h>

#include "base/mem.h"

struct dz_yaml_field;

/* A struct and the keys of the mapping that fills it. */
typedef struct dz_yaml_table {
    const struct dz_yaml_field *fields;
    size_t size; /* of the struct */
} dz_yaml_table;

typedef enum dz_yaml_kind {
    DZ_YAML_TEXT, /* char *: any single value, as it is written; NULL without one */
    DZ_YAML_LIST  /* dz_yaml_list of structs by `entry`; at the top of a document only, and in one key */
} dz_yaml_kind;

typedef struct dz_yaml_field {
    const char *key; /* NULL ends the list; at most 32 */
    dz_yaml_kind kind;
    size_t member; /* offset in the struct */
    const dz_yaml_table *entry;
} dz_yaml_field;

typedef struct dz_yaml_list {
    void *items;
    size_t n;
} dz_yaml_list;

/* Position of a key, or with key NULL of an entry of the list. */
typedef struct dz_yaml_place {
    size_t item; /* 0: the document itself; entries of its list from 1 on, as they are in `data` */
    const char *key;
    int line;
    int refused; /* its value, or an entry of it, is not in `data`: the error says why */
} dz_yaml_place;

typedef struct dz_yaml {
    void *data; /* the table's struct with all that is right; NULL when nothing is */
    const dz_yaml_table *table;
    dz_yaml_place *places; /* by item */
    size_t nplaces, cap;
} dz_yaml;

/* Reads `text` by `table`: a mapping of single values, one of whose keys may hold a list of such mappings. Every problem is a line of
 * `err`, "FILE:LINE: what" (DZ_EUSAGE): a text that is not YAML, unknown keys, duplicate keys, values of the wrong kind, a second
 * document. A key without a value is as one that is not there. dz_yaml_free afterwards in any case. */
dz_rc dz_yaml_load(const char *path, const char *text, size_t len, const dz_yaml_table *table, dz_yaml *out, dz_error *err);
void dz_yaml_free(dz_yaml *yaml);

/* NULL when it is not there. */
const dz_yaml_place *dz_yaml_find(const dz_yaml *yaml, size_t item, const char *key);

/* Its line; 0 when it is not there. */
int dz_yaml_line(const dz_yaml *yaml, size_t item, const char *key);

/* Appends UTF-8 text as a string in double quotes, escaping what YAML refuses or would read as something else. */
dz_rc dz_yaml_quote(dz_buf *out, const char *text, dz_error *err);

/* The words for "no value": nothing, ~, null. */
int dz_yaml_is_null(const char *text);

/* The words for a boolean, as PyYAML reads and writes them: 1 for true, yes, on, 0 for false, no, off, -1 for any other. */
int dz_yaml_boolean(const char *text);

#endif
