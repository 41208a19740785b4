#include "scan/base_claims.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"

#define CLAIM_MAX 256
#define TEXT_MAX ((uint64_t)4 << 20) /* bytes of a card or a configuration */

/* "org/name" is the model org--name of a hub's cache, or one called name. */
static int is_called(const dz_scan_model *m, const char *claim) {
    size_t cut = (size_t)(dz_path_last(claim) - claim);
    size_t len = strlen(claim), name = strlen(m->name);
    if (len == 0 || name == 0) return 0;
    if (strcmp(m->name, claim) == 0 || strcmp(dz_path_last(m->name), dz_path_last(claim)) == 0) return 1;
    return cut > 1 && name == len + 1 && strncmp(m->name, claim, cut - 1) == 0 && strncmp(m->name + cut - 1, "--", 2) == 0 &&
           strcmp(m->name + cut + 1, claim + cut) == 0;
}

/* The text up to a line's end, without quotes and spaces. */
static void copy_claim(const char *at, char claim[CLAIM_MAX]) {
    size_t len = 0;
    at += strspn(at, " \t-\"'");
    while (at[len] && !strchr("\r\n\"'#,", at[len]) && len + 1 < CLAIM_MAX) len++;
    while (len > 0 && (at[len - 1] == ' ' || at[len - 1] == '/')) len--;
    memcpy(claim, at, len);
    claim[len] = '\0';
}

/* base_model of the YAML at the beginning of README.md: a name, or a list whose first one is taken. */
static void claim_of_card(const char *text, char claim[CLAIM_MAX]) {
    static const char key[] = "\nbase_model:";
    const char *end = strncmp(text, "---", 3) == 0 ? strstr(text + 3, "\n---") : NULL, *at = strstr(text, key);
    if (!end || !at || at > end) return;
    at += sizeof key - 1;
    at += strspn(at, " \t");
    if (*at == '\r') at++;
    if (*at == '\n') at++;
    copy_claim(at, claim);
}

static void claim_of_config(const char *text, char claim[CLAIM_MAX]) {
    static const char key[] = "\"_name_or_path\":";
    const char *at = strstr(text, key);
    if (at) copy_claim(at + sizeof key - 1, claim);
}

static void claim_of_adapter(const char *text, char claim[CLAIM_MAX]) {
    static const char key[] = "\"base_model_name_or_path\":";
    const char *at = strstr(text, key);
    if (at && strncmp(at + sizeof key - 1 + strspn(at + sizeof key - 1, " \t"), "null", 4) != 0) copy_claim(at + sizeof key - 1, claim);
}

/* What the model says; empty for nothing. */
static dz_rc read_claim(const dz_scan_model *model, char claim[CLAIM_MAX], dz_error *err) {
    static const struct {
        const char *file;
        void (*read)(const char *text, char claim[CLAIM_MAX]);
    } sources[] = {{"adapter_config.json", claim_of_adapter}, {"README.md", claim_of_card}, {"config.json", claim_of_config}};
    claim[0] = '\0';
    for (size_t i = model->is_adapter ? 0 : 1; i < sizeof sources / sizeof *sources && !claim[0]; i++) {
        dz_error none = {0};
        size_t len = 0;
        char *path = dz_format(err, "%s/%s", model->path, sources[i].file), *text = NULL;
        if (!path) return err->rc;
        if (dz_read_file(path, TEXT_MAX, &text, &len, &none) == DZ_OK && strlen(text) == len) sources[i].read(text, claim);
        free(text);
        free(path);
    }
    return DZ_OK;
}

static int is_within(const char *path, const char *above) {
    size_t len = strlen(above);
    return strncmp(path, above, len) == 0 && path[len] == '/';
}

static int is_state(const dz_scan_model *m) { return strncmp(dz_path_last(m->path), "checkpoint-", strlen("checkpoint-")) == 0; }

dz_rc dz_base_claims_read(dz_scan_result *r, dz_error *err) {
    for (size_t i = 0; i < r->nmodels && err->rc == DZ_OK; i++) {
        dz_scan_model *m = &r->models[i];
        char claim[CLAIM_MAX];
        struct stat st;
        if (stat(m->path, &st) == 0) {
            m->device = st.st_dev;
            m->inode = st.st_ino;
        }
        if (read_claim(m, claim, err) == DZ_OK) m->claim = dz_strdup(claim, err);
    }
    return err->rc;
}

void dz_base_claims(const dz_scan_result *r, uint8_t *tier) {
    for (size_t i = 0; i < r->nmodels; i++) {
        tier[i] = is_state(&r->models[i]) ? DZ_TIER_CHECKPOINT : DZ_TIER_PLAIN;
        for (size_t k = 0; k < r->nmodels; k++) {
            if (is_within(r->models[i].path, r->models[k].path)) tier[i] = DZ_TIER_CHECKPOINT;
            if (tier[i] == DZ_TIER_PLAIN && is_state(&r->models[k]) && is_within(r->models[k].path, r->models[i].path))
                tier[i] = DZ_TIER_TRAINED;
        }
    }
    for (size_t i = 0; i < r->nmodels; i++) {
        const dz_scan_model *m = &r->models[i];
        for (size_t k = 0; k < r->nmodels; k++) {
            if (k != i && !r->models[k].is_adapter && !is_within(r->models[k].path, m->path) && is_called(&r->models[k], m->claim))
                tier[k] = DZ_TIER_CLAIMED;
        }
    }
}

size_t dz_adapter_base(const dz_scan_result *r, size_t adapter) {
    const char *claim = r->models[adapter].claim;
    struct stat want;
    size_t base = r->nmodels;
    if (!claim[0]) return base;
    int is_path = stat(claim, &want) == 0;
    for (size_t k = 0; k < r->nmodels; k++) {
        const dz_scan_model *m = &r->models[k];
        if (m->is_adapter || m->bad) continue;
        if (is_path && m->inode && m->device == want.st_dev && m->inode == want.st_ino) return k;
        if (base == r->nmodels && is_called(m, claim)) base = k;
    }
    return base;
}
