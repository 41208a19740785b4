#include "cli/report_rows.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "base/listing.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/overwrite.h"
#include "config/zoo_list.h"

#define MOST_BYTES ((size_t)1 << 30)

void dz_job_rows_free(dz_job_rows *r) {
    for (size_t i = 0; i < r->n; i++) {
        json_decref(r->rows[i].root);
        json_decref(r->rows[i].verify);
    }
    free(r->rows);
    *r = (dz_job_rows){0};
}

char *dz_report_line(const char *text, char *copy, size_t size) {
    snprintf(copy, size, "%s", text ? text : "-");
    return dz_one_line(copy);
}

static void count_verdict(dz_job_row *row, const json_t *task) {
    const char *verdict = json_string_value(json_object_get(json_object_get(task, "lossy"), "verdict"));
    for (int v = 0; v < DZ_VERDICTS && verdict; v++) {
        if (strcmp(verdict, dz_verdict_name((dz_verdict)v)) != 0) continue;
        row->verdicts[v]++;
        return;
    }
    row->unknown++;
}

/* What the archive holds. */
static dz_rc read_archive(const char *path, dz_job_row *row, dz_error *err) {
    json_error_t why;
    json_t *tasks = NULL, *task;
    json_int_t stored = 0;
    size_t i;
    if (json_unpack_ex(row->root, &why, 0, "{s:I, s:o}", "archive_bytes", &stored, "tasks", &tasks) != 0)
        return dz_fail(err, DZ_EUSAGE, "%s: is no report of 'compress --report': %s", path, why.text);
    json_t *base = json_object_get(row->root, "base");
    row->known = 1;
    row->stored = (double)stored;
    row->tasks = (long long)json_array_size(tasks);
    row->base = json_number_value(json_object_get(base, "bytes"));
    row->base_id = json_string_value(json_object_get(base, "fingerprint"));
    row->base_stored = json_is_true(json_object_get(base, "stored")) || json_is_string(json_object_get(base, "stored"));
    json_array_foreach(tasks, i, task) {
        row->source += json_number_value(json_object_get(task, "source_bytes"));
        row->dropped += json_number_value(json_object_get(json_object_get(task, "dropped"), "source_bytes"));
        count_verdict(row, task);
    }
    return DZ_OK;
}

/* What only the report of a finished job has. */
static dz_rc read_figures(const char *path, dz_job_row *row, dz_error *err) {
    json_error_t why;
    json_int_t resumed = 0;
    if (json_unpack_ex(row->root, &why, 0, "{s:{s:o, s:o, s:F, s:F, s:F, s:I, s?b, s:o}}", "job", "hosts", &row->hosts,
                       "phase_seconds_of_ranks", &row->phases, "peak_memory_bytes", &row->memory, "bytes_read", &row->bytes_read,
                       "bytes_written", &row->bytes_written, "resumed_blocks", &resumed, "this_start_only", &row->this_start_only, "notes",
                       &row->notes) != 0)
        return dz_fail(err, DZ_EUSAGE, "%s: is no report of 'compress --report': %s", path, why.text);
    row->resumed = resumed;
    return read_archive(path, row, err);
}

static json_t *read_json(const char *path, dz_error *err) {
    char *text = NULL;
    size_t len = 0;
    json_error_t why;
    if (dz_read_file(path, MOST_BYTES, &text, &len, err) != DZ_OK) return NULL;
    json_t *root = json_loadb(text, len, 0, &why);
    free(text);
    if (!root) dz_fail(err, DZ_EUSAGE, "%s: is no report: line %d: %s", path, why.line, why.text);
    return root;
}

/* Takes ownership of `root`. */
static dz_rc take_row(const char *path, json_t *root, dz_job_row *row, dz_error *err) {
    const char *archive = NULL, *state = "done"; /* older reports have no other */
    json_error_t why;
    json_t *slurm = NULL;
    *row = (dz_job_row){.root = root};
    json_t *job = json_object_get(root, "job");
    if (json_unpack_ex(job, &why, 0, "{s:s, s:i, s:F, s?s, s?o}", "archive", &archive, "ranks", &row->ranks, "seconds", &row->secs, "state",
                       &state, "slurm", &slurm) != 0)
        return dz_fail(err, DZ_EUSAGE, "%s: is no report of 'compress --report': %s", path, why.text);
    dz_report_line(json_string_value(json_object_get(job, "started")), row->started, sizeof row->started);
    dz_report_line(json_string_value(json_object_get(job, "finished")), row->finished, sizeof row->finished);
    dz_report_line(json_string_value(json_object_get(job, "manifest")), row->manifest, sizeof row->manifest);
    dz_report_line(state, row->state, sizeof row->state);
    dz_report_line(archive, row->archive, sizeof row->archive);
    snprintf(row->file, sizeof row->file, "%s", archive);
    dz_report_line(json_string_value(json_object_get(slurm, "job_id")), row->slurm, sizeof row->slurm);
    row->errors = json_object_get(job, "errors");
    json_t *code = json_object_get(job, "exit_code");
    row->exit_code = json_is_null(code) ? -1 : json_integer_value(code);
    row->starts = 1 + (int)json_integer_value(json_object_get(slurm, "restarts"));
    row->whole = strcmp(state, "done") == 0;
    if (strcmp(state, "nothing to do") == 0 && json_object_get(root, "tasks")) return read_archive(path, row, err);
    return row->whole ? read_figures(path, row, err) : DZ_OK;
}

static dz_job_row *new_row(dz_job_rows *r, dz_error *err) {
    if (dz_grow((void **)&r->rows, &r->cap, r->n + 1, sizeof *r->rows, err) != DZ_OK) return NULL;
    return &r->rows[r->n];
}

/* A report of compress as a further row, or (`*verify` gets it) one of verify. */
static dz_rc read_report(dz_job_rows *r, const char *path, json_t **verify, dz_error *err) {
    json_t *root = read_json(path, err);
    dz_job_row *row = root ? new_row(r, err) : NULL;
    if (!row) {
        json_decref(root);
        return err->rc;
    }
    if (verify && json_is_object(json_object_get(root, "verify"))) {
        *verify = root;
        return DZ_OK;
    }
    if (take_row(path, root, row, err) == DZ_OK)
        r->n++;
    else
        json_decref(root);
    return err->rc;
}

/* Whether that check is one of the file as it is now. */
static dz_checked check_of(const json_t *verify, const char *archive) {
    json_t *facts = json_object_get(verify, "verify");
    struct stat st;
    const char *state = json_string_value(json_object_get(json_object_get(verify, "job"), "state"));
    if (!state || (strcmp(state, "done") != 0 && strcmp(state, "failed") != 0) || stat(archive, &st) != 0) return DZ_CHECKED_BEFORE;
    if (json_integer_value(json_object_get(facts, "archive_bytes")) != (json_int_t)st.st_size ||
        json_integer_value(json_object_get(facts, "archive_mtime_ns")) != (json_int_t)dz_mtime_ns(&st))
        return DZ_CHECKED_BEFORE;
    return json_is_true(json_object_get(facts, "sound")) ? DZ_CHECKED_SOUND : DZ_CHECKED_DAMAGED;
}

/* Takes ownership of `verify`. Returns 0 if no row is of that archive. */
static int join_verify(dz_job_rows *r, json_t *verify) {
    const char *archive = json_string_value(json_object_get(json_object_get(verify, "job"), "archive"));
    int found = 0;
    for (size_t i = 0; archive && i < r->n; i++) {
        dz_job_row *row = &r->rows[i];
        if (strcmp(row->file, archive) != 0 && !dz_same_file(row->file, archive)) continue;
        if (row->verify) json_decref(row->verify);
        row->verify = json_incref(verify);
        row->checked = check_of(verify, archive);
        found = 1;
    }
    json_decref(verify);
    return found;
}

static void warn(dz_job_rows *r, const dz_error *why) {
    dz_message("warning", "%s", why->text);
    r->bad++;
}

static dz_rc add_folder(dz_job_rows *r, const char *folder, dz_error *err) {
    dz_listing list = {0};
    size_t before = r->n, nchecks = 0;
    int error = dz_listing_read(folder, &list, err);
    json_t **checks = dz_alloc(list.n, sizeof *checks, err);
    for (size_t i = 0; i < list.n && err->rc == DZ_OK; i++) {
        char *path = dz_format(err, "%s/%s", folder, list.entries[i].name);
        dz_error none = {0};
        if (path && list.entries[i].is_file && dz_ends_with(path, ".json") && dz_target_of(path) == DZ_TARGET_REPORT) {
            if (read_report(r, path, &checks[nchecks], &none) != DZ_OK) warn(r, &none);
            nchecks += checks[nchecks] != NULL;
        }
        free(path);
    }
    for (size_t i = 0; i < nchecks; i++) join_verify(r, checks[i]);
    if (err->rc == DZ_OK && r->n == before && r->bad == 0) {
        dz_error none = {0};
        dz_fail(&none, DZ_EUSAGE, "%s: %s", folder, error ? strerror(error) : "no report of compress in this folder");
        warn(r, &none);
    }
    free(checks);
    dz_listing_free(&list);
    return err->rc;
}

/* The name with another ending, in the place of `old` if it has that. The caller frees. */
static char *sibling_of(const char *path, const char *old, const char *ending, dz_error *err) {
    int stem = (int)(strlen(path) - (dz_ends_with(path, old) ? strlen(old) : 0));
    return dz_format(err, "%.*s%s", stem, path, ending);
}

/* One line of a list: the report, that of a later run that has not come to a good end, and that of verify. */
static dz_rc add_listed(dz_job_rows *r, const dz_zoo_list_row *zoo, size_t element, dz_error *err) {
    static const char *const ENDINGS[] = {".json", ".rerun.json", ".verify.json"};
    json_t *verify = NULL;
    size_t before = r->n;
    for (int i = 0; i < 3 && err->rc == DZ_OK; i++) {
        char *path = sibling_of(zoo->archive, ".h5", ENDINGS[i], err);
        dz_error none = {0};
        if (path && dz_target_of(path) != DZ_TARGET_NONE && read_report(r, path, &verify, &none) != DZ_OK) warn(r, &none);
        free(path);
    }
    dz_job_row *row = r->n == before ? new_row(r, err) : NULL;
    if (row) {
        *row = (dz_job_row){.missing = 1, .exit_code = -1, .starts = 0, .state = "not started"};
        dz_report_line(NULL, row->started, sizeof row->started);
        dz_report_line(NULL, row->finished, sizeof row->finished);
        dz_report_line(NULL, row->slurm, sizeof row->slurm);
        dz_report_line(zoo->manifest, row->manifest, sizeof row->manifest);
        dz_report_line(zoo->archive, row->archive, sizeof row->archive);
        snprintf(row->file, sizeof row->file, "%s", zoo->archive);
        r->n++;
    }
    for (size_t i = before; i < r->n; i++) r->rows[i].element = element;
    if (verify) join_verify(r, verify);
    return err->rc;
}

static dz_rc add_list(dz_job_rows *r, const char *path, dz_error *err) {
    dz_zoo_list list = {0};
    dz_error why = {0};
    if (dz_zoo_list_load(path, &list, &why) != DZ_OK) warn(r, &why);
    size_t before = r->n;
    int any = 0;
    for (size_t i = 0; why.rc == DZ_OK && i < list.n && err->rc == DZ_OK; i++) add_listed(r, &list.rows[i], i + 1, err);
    for (size_t i = before; i < r->n; i++) any |= r->rows[i].verify != NULL;
    for (size_t i = before; i < r->n && any; i++)
        r->rows[i].unverified = r->rows[i].known && (r->rows[i].checked == DZ_CHECKED_NOT || r->rows[i].checked == DZ_CHECKED_BEFORE);
    dz_zoo_list_free(&list);
    return err->rc;
}

/* A file that is neither a report nor anything else of ours, and whose first line that counts is not JSON. */
static int looks_like_list(const char *path) {
    char *text = NULL;
    size_t len = 0;
    dz_error none = {0};
    dz_target kind = dz_target_of(path);
    if (kind == DZ_TARGET_LIST) return 1;
    if (kind != DZ_TARGET_FILE || dz_ends_with(path, ".json") || dz_read_file(path, (size_t)64 << 20, &text, &len, &none) != DZ_OK)
        return 0;
    const char *at = text + strspn(text, " \t\r\n");
    int is = *at && *at != '{' && *at != '[' && strlen(text) == len;
    free(text);
    return is;
}

dz_rc dz_job_rows_add(dz_job_rows *r, const char *source, dz_error *err) {
    struct stat st;
    dz_error why = {0};
    if (stat(source, &st) == 0 && S_ISDIR(st.st_mode)) return add_folder(r, source, err);
    if (looks_like_list(source)) {
        r->list = source;
        r->nlists++;
        return add_list(r, source, err);
    }
    json_t *verify = NULL;
    if (read_report(r, source, &verify, &why) != DZ_OK) warn(r, &why);
    if (why.rc == DZ_OK && !verify) { /* that of verify is beside it */
        char *beside = sibling_of(source, ".json", ".verify.json", err);
        if (beside && dz_target_of(beside) == DZ_TARGET_REPORT) {
            read_report(r, beside, &verify, &why);
            if (verify) join_verify(r, verify);
        }
        free(beside);
        return err->rc;
    }
    if (verify && !join_verify(r, verify)) {
        dz_fail(&why, DZ_EUSAGE, "%s: is a report of verify; give that of the compress job before it", source);
        warn(r, &why);
    }
    return err->rc;
}
