/* YAML into structs. libyaml finds problems of a document and their lines; libcyaml reads the valid parts by the schema. */
#ifndef DZ_CONFIG_YAML_H
#define DZ_CONFIG_YAML_H

#include <cyaml/cyaml.h>

#include "base/mem.h"

/* Position of a key, or with key NULL of an entry of the list. */
typedef struct dz_yaml_place {
    size_t item; /* 0: the document itself; entries of its list from 1 on, as they are in `data` */
    const char *key;
    int line;
    int refused; /* its value, or an entry of it, is not in `data`: the error says why */
} dz_yaml_place;

typedef struct dz_yaml {
    void *data; /* the schema's struct with all that is right; NULL when nothing is */
    const cyaml_schema_value_t *schema;
    dz_yaml_place *places; /* by item */
    size_t nplaces, cap;
} dz_yaml;

/* Reads `text` by `schema`: a mapping of strings, one of whose keys may hold a list of such mappings. Every problem is a line of `err`,
 * "FILE:LINE: what" (DZ_EUSAGE): a text that is not YAML, unknown keys, duplicate keys, values of the wrong kind, a second document.
 * A key without a value is as one that is not there. dz_yaml_free afterwards in any case. */
dz_rc dz_yaml_load(const char *path, const char *text, size_t len, const cyaml_schema_value_t *schema, dz_yaml *out, dz_error *err);
void dz_yaml_free(dz_yaml *yaml);

/* NULL when it is not there. */
const dz_yaml_place *dz_yaml_find(const dz_yaml *yaml, size_t item, const char *key);

/* Its line; 0 when it is not there. */
int dz_yaml_line(const dz_yaml *yaml, size_t item, const char *key);

/* Appends UTF-8 text as a string in double quotes, escaping what YAML refuses or would read as something else. */
dz_rc dz_yaml_quote(dz_buf *out, const char *text, dz_error *err);

/* The words for "no value": nothing, ~, null. */
int dz_yaml_is_null(const char *text);

#endif
