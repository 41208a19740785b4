#include "model/yaml.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* What libcyaml says while it fails: the first line is the fault, the backtrace's first position is where. */
typedef struct complaint {
    char fault[256];
    int line;
} complaint;

static void collect(cyaml_log_t level, void *ctx, const char *fmt, va_list args) {
    complaint *c = ctx;
    char text[256];
    (void)level;
    vsnprintf(text, sizeof text, fmt, args);
    text[strcspn(text, "\n")] = '\0';
    const char *said = strncmp(text, "Load: ", 6) == 0 ? text + 6 : text;
    const char *at = strstr(text, "(line: ");
    if (at && c->line == 0) sscanf(at, "(line: %d", &c->line);
    if (c->fault[0] == '\0' && !at) snprintf(c->fault, sizeof c->fault, "%s", said);
}

static cyaml_config_t config(complaint *c) {
    return (cyaml_config_t){.log_fn = collect, .log_ctx = c, .log_level = CYAML_LOG_WARNING, .mem_fn = cyaml_mem};
}

/* libcyaml gives the position before an unexpected key: the first line from there on that has the key is its line. */
static int line_of_key(const char *text, int from, const char *key) {
    int line = 1;
    for (const char *at = text; at; line++) {
        const char *end = strchr(at, '\n');
        size_t len = end ? (size_t)(end - at) : strlen(at), klen = strlen(key);
        for (size_t i = 0; line >= from && i + klen < len; i++) {
            int starts = i == 0 || strchr(" \t{,-\"'", at[i - 1]) != NULL;
            if (starts && strncmp(at + i, key, klen) == 0 && strchr(" \t:\"'", at[i + klen])) return line;
        }
        at = end ? end + 1 : NULL;
    }
    return from;
}

dz_rc dz_yaml_load(const char *path, const char *text, size_t len, const cyaml_schema_value_t *schema, void **out, dz_error *err) {
    complaint c = {0};
    cyaml_config_t cfg = config(&c);
    *out = NULL;
    cyaml_err_t rc = cyaml_load_data((const uint8_t *)text, len, &cfg, schema, out, NULL);
    static const char unexpected[] = "Unexpected key: ";
    if (rc != CYAML_OK && strncmp(c.fault, unexpected, sizeof unexpected - 1) == 0) {
        const char *key = c.fault + sizeof unexpected - 1;
        return dz_fail(err, DZ_EUSAGE, "%s:%d: unknown key '%s'", path, line_of_key(text, c.line, key), key);
    }
    if (rc != CYAML_OK) return dz_fail(err, DZ_EUSAGE, "%s:%d: %s", path, c.line, c.fault[0] ? c.fault : cyaml_strerror(rc));
    if (!*out) return dz_fail(err, DZ_EUSAGE, "%s: is empty", path);
    return DZ_OK;
}

void dz_yaml_free(const cyaml_schema_value_t *schema, void *data) {
    complaint c = {0};
    cyaml_config_t cfg = config(&c);
    if (data) cyaml_free(&cfg, schema, data, 0);
}
