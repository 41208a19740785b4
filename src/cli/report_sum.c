#include "cli/report_sum.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/table.h"

typedef enum outcome { DONE, RUNNING, INTERRUPTED, FAILED, NOT_STARTED, OUTCOMES } outcome;

static const char *const OUTCOME_NAMES[OUTCOMES] = {"done", "not ended", "interrupted", "failed", "not started"};

typedef struct sum {
    size_t families, outcomes[OUTCOMES], checked[4], verdicts[DZ_VERDICTS], unknown, tasks, bases, stored_bases;
    double source, dropped, stored, secs;
    double base, kept;              /* of all bases; of those that no archive holds */
    const char *started, *finished; /* the first and the last of all; NULL: not known */
} sum;

static outcome outcome_of(const dz_job_row *r) {
    if (r->missing) return NOT_STARTED;
    if (r->known) return DONE;
    if (r->exit_code < 0) return RUNNING;
    return strcmp(r->state, "interrupted") == 0 ? INTERRUPTED : FAILED;
}

/* Another row of the same archive counts instead: one of a good end, and of several the last. */
static int is_superseded(const dz_job_rows *rows, size_t i) {
    const dz_job_row *r = &rows->rows[i];
    for (size_t k = 0; k < rows->n; k++) {
        const dz_job_row *other = &rows->rows[k];
        if (k == i || strcmp(other->file, r->file) != 0) continue;
        int later = strcmp(other->started, r->started);
        if (other->known != r->known ? other->known : (later > 0 || (later == 0 && k > i))) return 1;
    }
    return 0;
}

static int is_base_counted(const dz_job_rows *rows, size_t i) {
    const char *id = rows->rows[i].base_id;
    for (size_t k = 0; id && k < i; k++) {
        const dz_job_row *r = &rows->rows[k];
        if (r->known && r->base_id && !r->base_stored && strcmp(r->base_id, id) == 0 && !is_superseded(rows, k)) return 1;
    }
    return 0;
}

static void add_row(sum *s, const dz_job_rows *rows, size_t i) {
    const dz_job_row *r = &rows->rows[i];
    int counts = !is_superseded(rows, i);
    s->secs += r->secs;
    if (strcmp(r->started, "-") != 0 && (!s->started || strcmp(r->started, s->started) < 0)) s->started = r->started;
    if (strcmp(r->finished, "-") != 0 && (!s->finished || strcmp(r->finished, s->finished) > 0)) s->finished = r->finished;
    s->families += (size_t)counts;
    if (counts) s->outcomes[outcome_of(r)]++;
    if (!counts || !r->known) return;
    s->checked[r->checked]++;
    s->tasks += (size_t)r->tasks;
    s->source += r->source;
    s->dropped += r->dropped;
    s->stored += r->stored;
    s->unknown += r->unknown;
    for (int v = 0; v < DZ_VERDICTS; v++) s->verdicts[v] += r->verdicts[v];
    s->stored_bases += (size_t)r->base_stored;
    if (!r->base_stored && is_base_counted(rows, i)) return;
    s->base += r->base;
    if (r->base_stored) return;
    s->bases++;
    s->kept += r->base;
}

static sum sum_of(const dz_job_rows *rows) {
    sum s = {0};
    for (size_t i = 0; i < rows->n; i++) add_row(&s, rows, i);
    return s;
}

/* A later run of the same zoo that has not ended well is listed as well. */
static int needs_work(const dz_job_rows *rows, size_t i) {
    const dz_job_row *r = &rows->rows[i];
    if (outcome_of(r) == DONE) return r->unverified && !is_superseded(rows, i);
    for (size_t k = 0; k < rows->n; k++) {
        const dz_job_row *other = &rows->rows[k];
        if (k != i && other->known && strcmp(other->file, r->file) == 0 && strcmp(other->started, r->started) >= 0) return 0;
    }
    return 1;
}

const char *dz_report_next(const dz_job_row *r, char text[DZ_NEXT_TEXT]) {
    static const char AGAIN[] = "submit the same job again: it goes on where it stopped";
    switch (outcome_of(r)) {
        case DONE:
            if (r->checked == DZ_CHECKED_DAMAGED)
                snprintf(text, DZ_NEXT_TEXT, "the archive is damaged: deltazoo verify names what is; compress --force makes it anew");
            else if (r->unverified)
                snprintf(text, DZ_NEXT_TEXT, "submit the same job again: the archive has not been verified since it was written");
            else
                return NULL;
            break;
        case NOT_STARTED: snprintf(text, DZ_NEXT_TEXT, "submit its job: there is no report yet"); break;
        case RUNNING: snprintf(text, DZ_NEXT_TEXT, "if no such job runs, %s", AGAIN); break;
        case INTERRUPTED: snprintf(text, DZ_NEXT_TEXT, "%s", AGAIN); break;
        default: snprintf(text, DZ_NEXT_TEXT, "do what the error says, then submit the same job again"); break;
    }
    return text;
}

/* ---- text --------------------------------------------------------------------------------------------------------------------------- */

/* "38 done, 1 failed": those that are not 0. */
static void print_counts(const size_t *counts, const char *const *names, int n) {
    int any = 0;
    for (int i = 0; i < n; i++) {
        if (counts[i]) printf("%s%zu %s", any++ ? ", " : "", counts[i], names[i]);
    }
    putchar('\n');
}

static void print_bytes(const char *what, double before, double after) {
    char a[32], b[32];
    printf("%-25s %9s -> %9s  %.2fx\n", what, dz_format_size(before, a), dz_format_size(after, b), after > 0 ? before / after : 0);
}

#define MOST_POOR 20

/* A poor task: where it is. */
static void print_poor(const dz_job_rows *rows) {
    size_t n = 0, i;
    json_t *task;
    char name[256], file[256];
    for (size_t k = 0; k < rows->n; k++) {
        const dz_job_row *r = &rows->rows[k];
        if (!r->known || !r->verdicts[DZ_VERDICT_POOR] || is_superseded(rows, k)) continue;
        json_array_foreach(json_object_get(r->root, "tasks"), i, task) {
            const json_t *lossy = json_object_get(task, "lossy");
            const char *verdict = json_string_value(json_object_get(lossy, "verdict"));
            char line[256];
            if (!verdict || strcmp(verdict, dz_verdict_name(DZ_VERDICT_POOR)) != 0 || n++ >= MOST_POOR) continue;
            dz_report_line(json_string_value(json_object_get(task, "name")), line, sizeof line);
            printf("  poor: %-24s noise %.2g of the delta  %s\n", dz_table_name(line, 24, name),
                   json_number_value(json_object_get(lossy, "noise_to_delta")), dz_table_name(r->archive, 22, file));
        }
    }
    if (n > MOST_POOR) printf("  and %zu more (--json has all)\n", n - MOST_POOR);
    if (n) printf("  (compress --quality high, or a task's own quality in the manifest, keeps more)\n");
}

/* "3,7,12": the elements of a list whose job is to be submitted again. */
static void print_again(const dz_job_rows *rows) {
    size_t last = 0;
    if (rows->nlists != 1) return;
    for (size_t i = 0; i < rows->n; i++) {
        const dz_job_row *r = &rows->rows[i];
        if (!r->element || r->element == last || !needs_work(rows, i)) continue;
        printf("%s%zu", last ? "," : "again: sbatch --array=", r->element);
        last = r->element;
    }
    if (last) printf(" jobs/array.sbatch, with ZOOS=%s\n", rows->list);
}

void dz_print_report_sum(const dz_job_rows *rows) {
    static const char *const CHECKS[] = {"not verified", "sound", "damaged", "written or moved since"};
    const char *verdicts[DZ_VERDICTS + 1] = {[DZ_VERDICTS] = "not known"};
    size_t counts[DZ_VERDICTS + 1];
    char secs[32];
    sum s = sum_of(rows);
    for (int v = 0; v < DZ_VERDICTS; v++) verdicts[v] = dz_verdict_name((dz_verdict)v);
    memcpy(counts, s.verdicts, sizeof s.verdicts);
    counts[DZ_VERDICTS] = s.unknown;
    printf("\n%zu archive%s: ", s.families, s.families == 1 ? "" : "s");
    print_counts(s.outcomes, OUTCOME_NAMES, OUTCOMES);
    if (s.outcomes[DONE]) {
        printf("%zu task%s, quality: ", s.tasks, s.tasks == 1 ? "" : "s");
        print_counts(counts, verdicts, DZ_VERDICTS + 1);
        print_poor(rows);
        print_bytes("models without bases", s.source, s.stored);
        if (s.dropped > 0) print_bytes("without dropped tensors", s.source - s.dropped, s.stored);
        print_bytes("models with their bases", s.source + s.base, s.stored + s.kept);
        if (s.bases) printf("bases to be kept: %zu, %s\n", s.bases, dz_format_size(s.kept, secs));
        if (s.stored_bases) printf("bases in their archives: %zu\n", s.stored_bases);
        printf("archives: ");
        print_counts(s.checked, CHECKS, 4);
    }
    printf("%s of jobs", dz_format_time(s.secs, secs));
    if (s.started && s.finished) printf(", from %.16s to %.16s", s.started, s.finished);
    putchar('\n');
    print_again(rows);
}

/* ---- JSON --------------------------------------------------------------------------------------------------------------------------- */

static json_t *names_of_poor(const dz_job_row *r) {
    json_t *list = json_array(), *task;
    size_t i;
    json_array_foreach(json_object_get(r->root, "tasks"), i, task) {
        const char *verdict = json_string_value(json_object_get(json_object_get(task, "lossy"), "verdict"));
        if (verdict && strcmp(verdict, dz_verdict_name(DZ_VERDICT_POOR)) == 0) json_array_append(list, json_object_get(task, "name"));
    }
    return list;
}

static json_t *verdicts_json(const size_t *counts, size_t unknown) {
    json_t *o = json_object();
    for (int v = 0; v < DZ_VERDICTS; v++) json_object_set_new(o, dz_verdict_name((dz_verdict)v), json_integer((json_int_t)counts[v]));
    json_object_set_new(o, "unknown", json_integer((json_int_t)unknown));
    return o;
}

static json_t *text_or_null(const char *text) { return text && strcmp(text, "-") != 0 ? dz_json_text(text, strlen(text)) : json_null(); }

static json_t *family_json(const dz_job_rows *rows, size_t i) {
    static const char *const CHECKS[] = {"no", "sound", "damaged", "before the last change"};
    const dz_job_row *r = &rows->rows[i];
    char next[DZ_NEXT_TEXT];
    json_t *o =
        json_pack("{s:o, s:o, s:s, s:o, s:O?, s:o, s:s, s:s, s:f, s:o, s:o}", "manifest", text_or_null(r->manifest), "archive",
                  text_or_null(r->file), "state", r->state, "exit_code", r->exit_code < 0 ? json_null() : json_integer(r->exit_code),
                  "errors", r->errors, "next", text_or_null(dz_report_next(r, next)), "outcome", OUTCOME_NAMES[outcome_of(r)], "verified",
                  CHECKS[r->checked], "seconds", r->secs, "started", text_or_null(r->started), "finished", text_or_null(r->finished));
    if (!o) return NULL;
    json_object_set_new(o, "element", r->element ? json_integer((json_int_t)r->element) : json_null());
    json_object_set_new(o, "counts", json_boolean(!is_superseded(rows, i)));
    if (!r->known) return o;
    json_object_set_new(o, "tasks", json_integer(r->tasks));
    json_object_set_new(o, "source_bytes", json_real(r->source));
    json_object_set_new(o, "dropped_bytes", json_real(r->dropped));
    json_object_set_new(o, "archive_bytes", json_real(r->stored));
    json_object_set_new(o, "base_bytes", json_real(r->base));
    json_object_set_new(o, "base_stored", json_boolean(r->base_stored));
    json_object_set_new(o, "verdicts", verdicts_json(r->verdicts, r->unknown));
    json_object_set_new(o, "poor", names_of_poor(r));
    return o;
}

json_t *dz_report_sum_json(const dz_job_rows *rows) {
    json_t *families = json_array(), *totals, *outcomes = json_object();
    sum s = sum_of(rows);
    for (size_t i = 0; i < rows->n; i++) json_array_append_new(families, family_json(rows, i));
    for (int k = 0; k < OUTCOMES; k++) json_object_set_new(outcomes, OUTCOME_NAMES[k], json_integer((json_int_t)s.outcomes[k]));
    totals = json_pack("{s:I, s:o, s:I, s:f, s:f, s:f, s:f, s:f, s:I, s:I, s:I, s:o, s:f, s:o, s:o}", "archives", (json_int_t)s.families,
                       "outcomes", outcomes, "tasks", (json_int_t)s.tasks, "source_bytes", s.source, "dropped_bytes", s.dropped,
                       "archive_bytes", s.stored, "base_bytes", s.base, "kept_base_bytes", s.kept, "bases", (json_int_t)s.bases,
                       "bases_stored", (json_int_t)s.stored_bases, "verified", (json_int_t)s.checked[DZ_CHECKED_SOUND], "verdicts",
                       verdicts_json(s.verdicts, s.unknown), "seconds", s.secs, "started", text_or_null(s.started), "finished",
                       text_or_null(s.finished));
    return json_pack("{s:o, s:o}", "families", families, "totals", totals);
}
