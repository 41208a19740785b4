#include "checkpoint/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/listing.h"
#include "base/overwrite.h"
#include "base/version.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/texts.h"

static const char NOTE[] = "Not the original: weights were restored from a lossy archive. 'deltazoo unmark' takes this mark off.";

void dz_mark_put_escaped(dz_buf *b, const char *text, dz_error *err) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            dz_buf_line(b, err, "\\%c", c);
        else if (c < 0x20)
            dz_buf_line(b, err, "\\u%04x", c);
        else
            dz_buf_put(b, text, 1, err);
    }
}

void dz_mark_put_quoted(dz_buf *b, const char *text, dz_error *err) {
    dz_buf_line(b, err, "\"");
    dz_mark_put_escaped(b, text, err);
    dz_buf_line(b, err, "\"");
}

/* The shortest common style of both forms: `gap` after a comma, `space` after a colon. */
typedef struct style {
    const char *begin, *gap, *space;
} style;

static void put_text(dz_buf *b, const style *s, const char *key, const char *value, dz_error *err) {
    dz_buf_line(b, err, "%s\"%s\":%s", s->gap, key, s->space);
    dz_mark_put_quoted(b, value, err);
}

static void put_share(dz_buf *b, const style *s, const char *key, double x, dz_error *err) {
    if (isfinite(x))
        dz_buf_line(b, err, "%s\"%s\":%s%.3g", s->gap, key, s->space, x);
    else
        dz_buf_line(b, err, "%s\"%s\":%snull", s->gap, key, s->space);
}

static void put_common(dz_buf *b, const style *s, const dz_mark *m, dz_error *err) {
    dz_buf_line(b, err, "%s\"kind\":%s\"restored\"%s\"lossy\":%s%s", s->begin, s->space, s->gap, s->space, m->lossy ? "true" : "false");
    put_text(b, s, "task", m->task, err);
    put_text(b, s, "method", m->method, err);
    put_share(b, s, "kept", m->kept, err);
    put_share(b, s, "noise", m->noise, err);
    if (m->dtype) put_text(b, s, "dtype", m->dtype, err);
    put_text(b, s, "base", m->base, err);
    put_text(b, s, "base_fingerprint", m->fingerprint, err);
    put_text(b, s, "compressed_by", m->generator, err);
}

char *dz_mark_text(const dz_mark *m, dz_error *err) {
    static const style compact = {"{", ",", ""};
    dz_buf b = {0};
    put_common(&b, &compact, m, err);
    dz_buf_put(&b, "}", 2, err);
    if (err->rc == DZ_OK) return (char *)b.data;
    dz_buf_free(&b);
    return NULL;
}

dz_rc dz_mark_file(const dz_mark *m, const char *const *files, const uint64_t *sizes, size_t nfiles, dz_buf *out, dz_error *err) {
    static const style lines = {"{\n  ", ",\n  ", " "};
    char date[32];
    struct tm tm;
    strftime(date, sizeof date, "%FT%TZ", gmtime_r(&m->archive_date, &tm));
    put_common(out, &lines, m, err);
    dz_buf_line(out, err, "%s\"restored_by\": \"deltazoo %s\"%s\"format_version\": %u", lines.gap, DZ_VERSION, lines.gap,
                m->format_version);
    put_text(out, &lines, "archive", m->archive, err);
    put_text(out, &lines, "archive_date", date, err);
    dz_buf_line(out, err, "%s\"damaged\": %llu", lines.gap, (unsigned long long)m->damaged);
    put_text(out, &lines, "note", NOTE, err);
    dz_buf_line(out, err, "%s\"files\": {", lines.gap);
    for (size_t i = 0; i < nfiles; i++) {
        dz_buf_line(out, err, "%s\n    ", i ? "," : "");
        dz_mark_put_quoted(out, files[i], err);
        dz_buf_line(out, err, ": %llu", (unsigned long long)sizes[i]);
    }
    return dz_buf_line(out, err, "\n  }\n}\n");
}

/* ---- in a header -------------------------------------------------------------------------------------------------------------------- */

static const char *past_spaces(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\n' || *at == '\r' || *at == '\t')) at++;
    return at;
}

/* What follows the '{' of the object under "__metadata__"; NULL where there is none. */
static const char *find_metadata(const char *json, const char *end) {
    static const char key[] = "\"__metadata__\"";
    int depth = 0;
    for (const char *at = json; at < end;) {
        if (*at == '"') {
            const char *after = dz_text_past_string(at, end), *colon = past_spaces(after, end);
            if (depth == 1 && (size_t)(after - at) == sizeof key - 1 && memcmp(at, key, sizeof key - 1) == 0 && colon < end &&
                *colon == ':') {
                colon = past_spaces(colon + 1, end);
                return colon < end && *colon == '{' ? colon + 1 : NULL;
            }
            at = after;
            continue;
        }
        depth += (*at == '{' || *at == '[') - (*at == '}' || *at == ']');
        at++;
    }
    return NULL;
}

/* A mark that comes first in the metadata: it ends where this points, a comma included. `at` where there is none. */
static const char *past_mark(const char *at, const char *end) {
    static const char key[] = "\"" DZ_MARK_KEY "\":\"";
    if ((size_t)(end - at) < sizeof key || memcmp(at, key, sizeof key - 1) != 0) return at;
    const char *after = past_spaces(dz_text_past_string(at + sizeof key - 2, end), end);
    return after < end && *after == ',' ? after + 1 : after;
}

dz_rc dz_mark_header(const char *header, size_t len, const char *text, dz_buf *out, dz_error *err) {
    const char *json = header + 8, *end = header + len, *metadata = find_metadata(json, end), *rest = json;
    dz_buf b = {0};
    while (end > json && end[-1] == ' ') end--;
    if (metadata) {
        rest = past_mark(metadata, end);
        dz_buf_put(&b, json, (size_t)(metadata - json), err);
    } else {
        rest = past_spaces(json, end) + 1; /* the '{' */
        dz_buf_line(&b, err, "{\"__metadata__\":{");
    }
    dz_buf_line(&b, err, "\"" DZ_MARK_KEY "\":\"");
    dz_mark_put_escaped(&b, text, err);
    const char *next = past_spaces(rest, end);
    dz_buf_line(&b, err, "\"%s", metadata ? next < end && *next == '}' ? "" : "," : next < end && *next == '}' ? "}" : "},");
    if (rest < end) dz_buf_put(&b, rest, (size_t)(end - rest), err);
    while (b.len % 8) dz_buf_put(&b, " ", 1, err);
    dz_buf_put_u64(out, b.len, err);
    dz_buf_put(out, b.data, b.len, err);
    dz_buf_free(&b);
    return err->rc;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------ */

static const char *text_of(const json_t *o, const char *key) {
    const char *text = json_string_value(json_object_get(o, key));
    return text ? text : "";
}

static int is_restored(const json_t *o) { return strcmp(text_of(o, "kind"), "restored") == 0; }

/* NULL for what is no mark of a restored model. */
static char *line_of(const json_t *o, dz_error *err) {
    char *line = NULL;
    const char *archive = text_of(o, "archive"), *base = text_of(o, "base");
    json_t *noise = json_object_get(o, "noise");
    char share[48] = "";
    if (json_is_number(noise)) snprintf(share, sizeof share, ", noise %.3g of the change", json_number_value(noise));
    if (is_restored(o))
        line = dz_format(err, "%s%stask '%s', method %s%s%s%s", archive, archive[0] ? ", " : "", text_of(o, "task"), text_of(o, "method"),
                         share, base[0] ? ", base " : "", base);
    return line ? dz_one_line(line) : NULL;
}

static json_t *load_file(const char *path) {
    char *text = NULL;
    size_t len = 0;
    dz_error none = {0};
    if (access(path, F_OK) != 0 || dz_read_file(path, DZ_HEADER_MAX, &text, &len, &none) != DZ_OK) return NULL;
    json_t *root = json_loadb(text, len, 0, NULL);
    free(text);
    return root;
}

dz_folder_mark dz_folder_mark_load(const char *folder) {
    dz_error none = {0};
    char *path = dz_format(&none, "%s/" DZ_MARK_FILE, folder);
    dz_folder_mark mark = {.json = path ? load_file(path) : NULL};
    free(path);
    if (!is_restored(mark.json)) dz_folder_mark_free(&mark);
    return mark;
}

void dz_folder_mark_free(dz_folder_mark *mark) {
    json_decref(mark->json);
    mark->json = NULL;
}

char *dz_folder_mark_line(const dz_folder_mark *mark, dz_error *err) { return line_of(mark->json, err); }

int dz_folder_mark_lists(const dz_folder_mark *mark, const char *file, uint64_t size) {
    const json_t *listed = json_object_get(json_object_get(mark->json, "files"), file);
    return json_is_integer(listed) && json_integer_value(listed) == (json_int_t)size;
}

/* The mark in a safetensors header, or NULL. */
static json_t *load_of_header(const char *header, size_t len) {
    static const char key[] = "\"" DZ_MARK_KEY "\"";
    if (len <= 8 || !memmem(header, len, key, sizeof key - 1)) return NULL; /* of thousands of headers hardly one is parsed again */
    json_t *root = json_loadb(header + 8, len - 8, 0, NULL);
    const char *text = json_string_value(json_object_get(json_object_get(root, "__metadata__"), DZ_MARK_KEY));
    json_t *mark = text ? json_loads(text, 0, NULL) : NULL;
    json_decref(root);
    return mark;
}

char *dz_mark_of_header(const char *header, size_t len, dz_error *err) {
    json_t *mark = load_of_header(header, len);
    char *line = line_of(mark, err);
    json_decref(mark);
    return line;
}

dz_rc dz_mark_vector_lacks(const char *header, size_t len, dz_buf *names, uint64_t *count, dz_error *err) {
    json_t *mark = load_of_header(header, len), *name;
    size_t i;
    json_array_foreach(json_object_get(mark, "lacks"), i, name) {
        char *copy = json_is_string(name) ? dz_strdup(json_string_value(name), err) : NULL;
        if (copy) dz_buf_line(names, err, "%s\n", dz_one_line(copy));
        free(copy);
    }
    *count = (uint64_t)json_integer_value(json_object_get(mark, "lacks_count"));
    json_decref(mark);
    return err->rc;
}

int dz_mark_is_file(const char *path) {
    json_t *root = load_file(path);
    int is = is_restored(root);
    json_decref(root);
    return is;
}

/* ---- taking it off ------------------------------------------------------------------------------------------------------------------ */

static dz_rc blank_header(const char *path, size_t *n, dz_error *err) {
    uint8_t raw[8];
    struct stat st;
    char *header = NULL;
    int fd = dz_open(path, O_RDWR);
    if (fd < 0 || fstat(fd, &st) != 0) {
        dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
        goto out;
    }
    if (dz_pread_all(fd, path, raw, 8, 0, err) != DZ_OK) goto out;
    dz_view v = {.data = raw, .len = 8};
    uint64_t len = dz_view_u64(&v);
    if (len > DZ_HEADER_MAX || len + 8 > (uint64_t)st.st_size) {
        dz_fail(err, DZ_EFAIL, "%s: not a safetensors file", path);
        goto out;
    }
    if (!(header = dz_alloc_raw((size_t)len, 1, err)) || dz_pread_all(fd, path, header, (size_t)len, 8, err) != DZ_OK) goto out;
    const char *metadata = find_metadata(header, header + len), *after = metadata ? past_mark(metadata, header + len) : NULL;
    static const char restored[] = "{\\\"kind\\\":\\\"restored";
    if (metadata == after || !memmem(metadata, (size_t)(after - metadata), restored, sizeof restored - 1)) goto out; /* both may be NULL */
    memset(header + (metadata - header), ' ', (size_t)(after - metadata));
    (*n)++;
    if (dz_pwrite_all(fd, path, metadata, (size_t)(after - metadata), 8 + (uint64_t)(metadata - header), err) == DZ_OK && dz_fsync(fd) != 0)
        dz_fail(err, DZ_EFAIL, "%s: cannot sync: %s", path, strerror(errno));
out:
    free(header);
    if (fd >= 0) close(fd);
    return err->rc;
}

dz_rc dz_mark_remove(const char *path, size_t *n, dz_error *err) {
    struct stat st;
    dz_listing list = {0};
    if (stat(path, &st) != 0) return dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(errno));
    if (!S_ISDIR(st.st_mode)) return blank_header(path, n, err);
    int failed = dz_listing_read(path, &list, err);
    if (failed) dz_fail(err, DZ_EFAIL, "%s: cannot open: %s", path, strerror(failed));
    for (size_t i = 0; i < list.n && err->rc == DZ_OK; i++) {
        char *file = dz_format(err, "%s/%s", path, list.entries[i].name);
        if (file && list.entries[i].is_dir && !list.entries[i].is_link && list.entries[i].name[0] != '.')
            dz_mark_remove(file, n, err);
        else if (file && !list.entries[i].is_dir && dz_ends_with(file, ".safetensors"))
            blank_header(file, n, err);
        free(file);
    }
    char *file = dz_format(err, "%s/" DZ_MARK_FILE, path);
    if (file && err->rc == DZ_OK && dz_mark_is_file(file)) {
        (*n)++;
        if (unlink(file) != 0) dz_fail(err, DZ_EFAIL, "%s: cannot remove: %s", file, strerror(errno));
    }
    free(file);
    dz_listing_free(&list);
    return err->rc;
}
