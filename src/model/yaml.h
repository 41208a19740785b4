/* YAML through libcyaml, with its complaints turned into one line that names file, line and key. */
#ifndef DZ_MODEL_YAML_H
#define DZ_MODEL_YAML_H

#include <cyaml/cyaml.h>

#include "base/error.h"

/* Loads `text` by `schema` into `*out` (an allocated struct; NULL for an empty document is refused). Unknown keys are errors with their
 * line. Free with dz_yaml_free. DZ_EUSAGE names `path`. */
dz_rc dz_yaml_load(const char *path, const char *text, size_t len, const cyaml_schema_value_t *schema, void **out, dz_error *err);
void dz_yaml_free(const cyaml_schema_value_t *schema, void *data);

#endif
