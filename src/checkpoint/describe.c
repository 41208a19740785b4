#include "checkpoint/describe.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"

#define TEXT_MAX 512

char *dz_plain_text(const char *text, size_t len, dz_error *err) {
    json_t *utf8 = len <= TEXT_MAX ? json_stringn(text, len) : NULL; /* NULL unless it is UTF-8 */
    char *copy = utf8 && !memchr(text, 0, len) ? dz_strndup(text, len, err) : dz_strdup("", err);
    json_decref(utf8);
    return copy ? dz_one_line(copy) : NULL;
}

/* .../models--ORG--NAME/snapshots/REVISION: 1 where the path is such a one. */
static int take_hub(const char *path, char **name, char **revision, dz_error *err) {
    static const char models[] = "models--", snapshots[] = "/snapshots/";
    const char *cut = strstr(path, snapshots), *begin = cut;
    while (begin && begin > path && begin[-1] != '/') begin--;
    if (!cut || strncmp(begin, models, strlen(models)) != 0) return 0;
    begin += strlen(models);
    char *plain = dz_plain_text(begin, (size_t)(cut - begin), err), *dashes = plain ? strstr(plain, "--") : NULL;
    if (dashes) {
        *dashes = '/';
        memmove(dashes + 1, dashes + 2, strlen(dashes + 2) + 1);
    }
    cut += strlen(snapshots);
    *name = plain;
    *revision = dz_plain_text(cut, strcspn(cut, "/"), err);
    return 1;
}

static json_t *load_config(const dz_checkpoint *ck) {
    for (size_t i = 0; i < ck->ncompanions; i++) {
        const dz_companion_file *f = &ck->companions[i];
        char *text = NULL;
        size_t len = 0;
        dz_error none = {0};
        if (strcmp(f->file, "config.json") != 0 || f->bytes || dz_read_file(f->path, DZ_SIDE_MAX, &text, &len, &none) != DZ_OK) continue;
        json_t *root = json_loadb(text, len, 0, NULL);
        free(text);
        return root;
    }
    return NULL;
}

static int is_local(const char *name) { return name[0] == '/' || name[0] == '.' || name[0] == '~' || strchr(name, '\\') != NULL; }

dz_rc dz_checkpoint_describe(const dz_checkpoint *ck, char **name, char **revision, dz_error *err) {
    char *real = realpath(ck->path, NULL);
    json_t *config = load_config(ck);
    const char *given = json_string_value(json_object_get(config, "_name_or_path")),
               *commit = json_string_value(json_object_get(config, "_commit_hash")), *path = real ? real : ck->path,
               *slash = strrchr(path, '/');
    *name = *revision = NULL;
    if (!take_hub(path, name, revision, err)) {
        const char *last = slash && slash[1] ? slash + 1 : path;
        if (given && given[0] && !is_local(given)) last = given;
        *name = dz_plain_text(last, strlen(last), err);
        *revision = dz_plain_text(commit ? commit : "", commit ? strlen(commit) : 0, err);
    }
    json_decref(config);
    free(real);
    return err->rc;
}
