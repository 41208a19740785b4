/* Side files of a model that name its type or its size, edited in place: everything else stays as it is, byte for byte. */
#include "checkpoint/texts.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Past the key and its colon, if here is this key of an object; else NULL. */
static const char *past_key(const char *at, const char *end, const char *key) {
    size_t len = strlen(key);
    if (end - at < (ptrdiff_t)len + 3 || at[0] != '"' || memcmp(at + 1, key, len) != 0 || at[1 + len] != '"') return NULL;
    for (at += len + 2; at < end && isspace((unsigned char)*at); at++) {
    }
    if (at == end || *at != ':') return NULL;
    for (at++; at < end && isspace((unsigned char)*at); at++) {
    }
    return at;
}

const char *dz_text_past_string(const char *at, const char *end) {
    for (at++; at < end && *at != '"'; at++) at += *at == '\\' && at + 1 < end;
    return at < end ? at + 1 : end;
}

dz_rc dz_text_set_dtype(const char *text, size_t len, dz_dtype dtype, dz_buf *out, dz_error *err) {
    static const char *const known[] = {"\"float64\"", "\"float32\"", "\"float16\"", "\"bfloat16\"", NULL};
    const char *word = dtype == DZ_F32 ? "\"float32\"" : dtype == DZ_F16 ? "\"float16\"" : "\"bfloat16\"", *end = text + len;
    for (const char *at = text; at < end && err->rc == DZ_OK;) {
        const char *value = past_key(at, end, "torch_dtype"), *next = *at == '"' ? dz_text_past_string(at, end) : at + 1;
        if (!value) value = past_key(at, end, "dtype");
        int i = 0;
        while (value && known[i] && (end - value < (ptrdiff_t)strlen(known[i]) || memcmp(value, known[i], strlen(known[i])) != 0)) i++;
        if (value && known[i]) {
            dz_buf_put(out, at, (size_t)(value - at), err);
            dz_buf_put(out, word, strlen(word), err);
            next = value + strlen(known[i]);
        } else {
            dz_buf_put(out, at, (size_t)(next - at), err);
        }
        at = next;
    }
    return err->rc;
}

dz_rc dz_text_add_total_size(const char *text, size_t len, int64_t more, dz_buf *out, dz_error *err) {
    const char *end = text + len;
    int done = 0;
    for (const char *at = text; at < end && err->rc == DZ_OK;) {
        const char *value = done ? NULL : past_key(at, end, "total_size"), *next = *at == '"' ? dz_text_past_string(at, end) : at + 1;
        size_t digits = 0;
        while (value && value + digits < end && isdigit((unsigned char)value[digits]) && digits < 19) digits++;
        if (digits) {
            dz_buf_put(out, at, (size_t)(value - at), err);
            dz_buf_line(out, err, "%lld", (long long)(strtoll(value, NULL, 10) + more));
            next = value + digits;
            done = 1;
        } else {
            dz_buf_put(out, at, (size_t)(next - at), err);
        }
        at = next;
    }
    return err->rc;
}
