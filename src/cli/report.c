#include "cli/report.h"
#include "cli/cli.h"
#include "cli/report_internal.h"

#include <fnmatch.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "archive_ops/verify.h"
#include "base/file.h"
#include "base/version.h"

static json_t *text_json(const char *text) { return dz_json_text(text, strlen(text)); }

typedef struct dz_spread {
    double least, mean, most, sum;
} dz_spread;

void dz_json_quality(json_t *o, dz_quality q) {
    const struct {
        const char *name;
        double value;
    } list[] = {{"cosine", q.cosine},
                {"gain", q.gain},
                {"noise_to_delta", q.noise_to_delta},
                {"noise_to_base", q.noise_to_base},
                {"expected_relative_error", q.error}};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) json_object_set_new(o, list[i].name, dz_json_number(list[i].value));
    json_object_set_new(o, "verdict", json_string(dz_verdict_name(q.verdict)));
}

json_t *dz_json_lines(const dz_buf *lines) {
    json_t *list = json_array();
    for (size_t at = 0; at < lines->len;) {
        const char *line = (const char *)lines->data + at, *end = memchr(line, '\n', lines->len - at);
        size_t len = end ? (size_t)(end - line) : lines->len - at;
        json_array_append_new(list, json_stringn(line, len));
        at += len + 1;
    }
    return list;
}

static json_t *tensor_json(const dz_catalog *c, const dz_task_entry *task, const dz_index_row *row) {
    const dz_tensor_row *t = &c->tensors[row->tensor];
    json_t *shape = json_array();
    for (uint32_t d = 0; d < t->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)t->shape[d]));
    json_t *o = json_pack("{s:o, s:o, s:o, s:s, s:I}", "name", text_json(t->name), "shape", shape, "dtype", text_json(t->dtype), "policy",
                          dz_policy_name((dz_policy)row->policy), "stored_bytes", (json_int_t)row->length);
    if (row->policy == DZ_POLICY_ULTRADELTA) {
        json_object_set_new(o, "sparsity", json_real((double)row->sparsity));
        json_object_set_new(o, "kept", json_integer((json_int_t)row->kept));
        json_object_set_new(o, "bits", json_integer(row->bits));
        json_object_set_new(o, "lo", json_real((double)row->lo));
        json_object_set_new(o, "step", json_real((double)row->step));
        json_object_set_new(o, "scale", json_real((double)row->scale));
        dz_json_quality(o, dz_row_quality(c, task, row));
    } else {
        json_object_set_new(o, "sparsity", json_null());
        json_object_set_new(o, "kept", json_null());
    }
    return o;
}

static json_t *task_json(const dz_catalog *c, const dz_task_entry *t) {
    dz_error err = {0};
    dz_buf lines = {0};
    dz_size_stats s = dz_task_size_stats(t);
    json_t *lossy = json_pack("{s:I, s:I, s:I, s:I, s:f, s:{s:f, s:f, s:f}}", "parameters", (json_int_t)t->lossy_parameters, "kept",
                              (json_int_t)t->lossy_kept, "source_bytes", (json_int_t)s.lossy_source, "stored_bytes",
                              (json_int_t)s.lossy_stored, "entropy_bytes", t->entropy_bytes, "ratio", "on_disk", s.lossy_ratio,
                              "value_bits", s.value_bits, "positions_coded", s.positions_coded);
    dz_json_quality(lossy, dz_task_quality(c, t));
    dz_task_warnings(c, t, &lines, &err);
    json_t *warnings = dz_json_lines(&lines);
    dz_buf_free(&lines);
    dz_dropped d = dz_task_dropped(c, t);
    json_t *dropped = json_pack("{s:I, s:I}", "tensors", (json_int_t)d.ntensors, "source_bytes", (json_int_t)d.source);
    dz_parts p = dz_task_parts(c, t);
    json_t *bytes = json_pack("{s:f, s:f, s:I, s:I, s:I, s:I}", "kept_values", p.values, "positions_and_codes", p.coding, "checks",
                              (json_int_t)p.checks, "exact_tensors", (json_int_t)p.exact, "index", (json_int_t)p.index, "structures",
                              (json_int_t)p.structures);
    const char *parent = dz_task_parent(t);
    json_t *task =
        json_pack("{s:s, s:o, s:f, s:f, s:f, s:f, s:f, s:i, s:I, s:I, s:I, s:{s:f, s:f}, s:o, s:o, s:o, s:o}", "name", t->name, "recipe",
                  text_json(t->recipe), "gamma", (double)t->gamma, "trace_norm", t->trace_norm, "trace_norm_error", t->trace_error,
                  "reference_trace_norm", t->trace_reference, "sparsity", t->sparsity, "bits", (int)t->bits, "seed", (json_int_t)t->seed,
                  "source_bytes", (json_int_t)s.source, "stored_bytes", (json_int_t)s.stored, "ratio", "on_disk", s.ratio,
                  "on_disk_without_dropped", d.ratio, "dropped", dropped, "lossy", lossy, "bytes", bytes, "warnings", warnings);
    if (!task) return NULL;
    json_object_set_new(task, "parent", parent ? text_json(parent) : json_null());
    json_object_set_new(task, "depth", json_integer((json_int_t)dz_task_depth(t)));
    json_object_set_new(task, "decoded", json_real(dz_task_decodings(c, t)));
    return task;
}

static int by_stored(const void *x, const void *y) {
    const dz_holder *a = x, *b = y;
    if (a->stored != b->stored) return a->stored > b->stored ? -1 : 1;
    return a->tensor < b->tensor ? -1 : a->tensor > b->tensor;
}

size_t dz_report_largest(const dz_catalog *c, const dz_task_entry *only, dz_holder out[DZ_LARGEST], uint64_t *total) {
    dz_error err = {0};
    size_t n = 0;
    dz_holder *all = dz_alloc(c->ntensors, sizeof *all, &err);
    *total = 0;
    for (size_t t = 0; all && t < c->ntasks; t++) {
        const dz_task_entry *task = &c->tasks[t];
        for (size_t i = 0; i < task->nrows && (!only || only == task); i++) {
            const dz_index_row *row = &task->rows[i];
            dz_holder *h = &all[row->tensor];
            if (row->length && h->ntasks++ == 0) h->policy = row->policy;
            h->stored += row->length;
            *total += row->length;
        }
    }
    for (uint32_t i = 0; all && i < c->ntensors; i++) all[i].tensor = i;
    if (all) qsort(all, c->ntensors, sizeof *all, by_stored);
    for (; all && n < DZ_LARGEST && n < c->ntensors && all[n].stored; n++) out[n] = all[n];
    free(all);
    return n;
}

static json_t *largest_json(const dz_catalog *c, const dz_task_entry *only) {
    dz_holder list[DZ_LARGEST];
    uint64_t total;
    size_t n = dz_report_largest(c, only, list, &total);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_pack("{s:o, s:s, s:I, s:f, s:I}", "name", text_json(c->tensors[list[i].tensor].name), "policy",
                                               dz_policy_name((dz_policy)list[i].policy), "stored_bytes", (json_int_t)list[i].stored,
                                               "share", (double)list[i].stored / (double)total, "tasks", (json_int_t)list[i].ntasks));
    return array;
}

json_t *dz_report_score(const dz_task_entry *t) {
    json_t *score = t->score ? json_loads(t->score, 0, NULL) : NULL;
    if (json_is_object(score)) return score;
    json_decref(score);
    return NULL;
}

json_t *dz_task_json(const dz_catalog *c, const dz_task_entry *task) {
    json_t *o = task_json(c, task), *score = dz_report_score(task);
    json_object_set_new(o, "score", score ? score : json_null());
    json_object_set_new(o, "kind", json_string(dz_task_is_adapter(task) ? "adapter" : "model"));
    return o;
}

int dz_report_shows(const dz_catalog *c, const dz_index_row *row, const char *match) {
    return !match || fnmatch(match, c->tensors[row->tensor].name, 0) == 0;
}

json_t *dz_tensors_json(const dz_catalog *c, const dz_task_entry *task, const char *match) {
    json_t *tensors = json_array();
    for (size_t i = 0; i < task->nrows; i++) {
        if (dz_report_shows(c, &task->rows[i], match)) json_array_append_new(tensors, tensor_json(c, task, &task->rows[i]));
    }
    return tensors;
}

static json_t *shared_json(const dz_catalog *c) {
    dz_error none = {0};
    dz_shared s;
    dz_shared_of(c, &s, &none);
    return json_pack("{s:I, s:I, s:I}", "tensors", (json_int_t)s.ntensors, "files", (json_int_t)s.nfiles, "saved_bytes",
                     (json_int_t)s.saved);
}

json_t *dz_info_json(const dz_catalog *c, const dz_task_entry *only, const dz_task_view *view, const char *match) {
    char hex[33];
    dz_digest_hex(c->fingerprint, hex);
    json_t *tasks = json_array();
    for (size_t t = 0; t < (only ? 1 : view ? view->n : c->ntasks); t++) {
        const dz_task_entry *task = only ? only : view ? view->tasks[t] : &c->tasks[t];
        if (!only && dz_catalog_is_stored(c, task)) continue;
        json_t *o = dz_task_json(c, task);
        if (only) {
            json_object_set_new(o, "tensors", dz_tensors_json(c, task, match));
            json_object_set_new(o, "recipe_text", text_json(task->recipe_text));
        }
        json_array_append_new(tasks, o);
    }
    json_t *lost = json_array();
    for (size_t i = 0; i < c->nlost; i++)
        json_array_append_new(lost, json_pack("{s:o, s:o, s:b}", "name", text_json(c->lost[i].name), "message", text_json(c->lost[i].text),
                                              "damaged", !c->lost[i].unread));
    json_t *shared = only ? json_null() : shared_json(c);
    json_t *stored = c->stored ? task_json(c, &c->tasks[c->stored - 1]) : json_null();
    return json_pack("{s:i, s:o, s:{s:s, s:o, s:o, s:o, s:I, s:I, s:b, s:o}, s:I, s:I, s:o, s:o, s:o, s:o}", "format_version",
                     (int)c->format_version, "generator", text_json(c->generator), "base", "fingerprint", hex, "name",
                     text_json(c->base_name ? c->base_name : ""), "origin", text_json(c->base_origin ? c->base_origin : ""), "revision",
                     text_json(c->base_revision ? c->base_revision : ""), "bytes", (json_int_t)dz_catalog_base_bytes(c), "tensors",
                     (json_int_t)c->nbase, "stored", c->stored != 0, "task", stored, "archive_bytes", (json_int_t)c->file_size,
                     "shared_bytes", (json_int_t)c->shared_bytes, "shared", shared, "tasks", tasks, "lost", lost, "largest",
                     largest_json(c, only));
}

/* Least, mean and most of a figure over the ranks; `offset`: of the double in dz_rank_figures. */
static dz_spread spread_of(const dz_compress_result *r, size_t offset) {
    dz_spread s = {0};
    for (int i = 0; i < r->nranks; i++) {
        double x;
        memcpy(&x, (const char *)&r->ranks[i] + offset, sizeof x);
        if (i == 0 || x < s.least) s.least = x;
        if (i == 0 || x > s.most) s.most = x;
        s.sum += x;
    }
    s.mean = s.sum / r->nranks;
    return s;
}

static dz_spread phase_spread(const dz_compress_result *r, int phase) {
    return spread_of(r, offsetof(dz_rank_figures, secs) + (size_t)phase * sizeof(double));
}

static json_t *spread_json(dz_spread s) { return json_pack("{s:f, s:f, s:f}", "min", s.least, "mean", s.mean, "max", s.most); }

void dz_print_phases(const dz_compress_result *r) {
    char memory[32];
    printf("\n%d rank%s, %.2f s:", r->nranks, r->nranks == 1 ? "" : "s", r->total_secs);
    for (int p = 0; p < DZ_PHASES; p++)
        printf("%s%s%s %.2f", p ? "," : "", p == DZ_PHASE_TRACE ? "\n" : " ", DZ_PHASE_NAMES[p], phase_spread(r, p).most);
    printf("; peak memory %s per rank\n", dz_format_size(spread_of(r, offsetof(dz_rank_figures, peak_memory)).most, memory));
}

static json_t *rank_json(const dz_rank_figures *f) {
    json_t *secs = json_object();
    for (int p = 0; p < DZ_PHASES; p++) json_object_set_new(secs, DZ_PHASE_NAMES[p], json_real(f->secs[p]));
    return json_pack("{s:s, s:o, s:f, s:f, s:f}", "host", f->host, "phase_seconds", secs, "peak_memory_bytes", f->peak_memory, "bytes_read",
                     f->bytes_read, "bytes_written", f->bytes_written);
}

/* The job as SLURM knows it, or null. */
static json_t *slurm_json(void) {
    static const char *const names[][2] = {
        {"job_id", "SLURM_JOB_ID"},           {"job_name", "SLURM_JOB_NAME"},         {"nodes", "SLURM_JOB_NODELIST"},
        {"partition", "SLURM_JOB_PARTITION"}, {"array_job_id", "SLURM_ARRAY_JOB_ID"}, {"array_task_id", "SLURM_ARRAY_TASK_ID"}};
    const char *restarts = getenv("SLURM_RESTART_COUNT");
    if (!getenv("SLURM_JOB_ID")) return json_null();
    json_t *o = json_object();
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const char *value = getenv(names[i][1]);
        if (value) json_object_set_new(o, names[i][0], json_string(value));
    }
    json_object_set_new(o, "restarts", json_integer(restarts ? atoi(restarts) : 0));
    return o;
}

static json_t *hosts_json(const dz_compress_result *r) {
    json_t *hosts = json_object(); /* ranks of each host */
    for (int i = 0; i < r->nranks; i++) {
        json_int_t n = json_integer_value(json_object_get(hosts, r->ranks[i].host));
        json_object_set_new(hosts, r->ranks[i].host, json_integer(n + 1));
    }
    return hosts;
}

/* What the job measured, if it came to its end. */
static json_t *figures_json(const dz_compress_result *r, const dz_compress_options *opt) {
    json_t *phases = json_object(), *spreads = json_object(), *ranks = json_array();
    for (int p = 0; p < DZ_PHASES; p++) {
        dz_spread s = phase_spread(r, p);
        json_object_set_new(phases, DZ_PHASE_NAMES[p], json_real(s.most));
        json_object_set_new(spreads, DZ_PHASE_NAMES[p], spread_json(s));
    }
    for (int i = 0; i < r->nranks; i++) json_array_append_new(ranks, rank_json(&r->ranks[i]));
    dz_spread memory = spread_of(r, offsetof(dz_rank_figures, peak_memory));
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:f, s:o, s:f, s:f, s:I, s:b, s:f, s:I, s:o, s:o}", "recipe", r->recipe_name, "host", r->ranks[0].host,
        "hosts", hosts_json(r), "phase_seconds", phases, "phase_seconds_of_ranks", spreads, "peak_memory_bytes", memory.most,
        "peak_memory_of_ranks", spread_json(memory), "bytes_read", spread_of(r, offsetof(dz_rank_figures, bytes_read)).sum, "bytes_written",
        spread_of(r, offsetof(dz_rank_figures, bytes_written)).sum, "resumed_blocks",
        (json_int_t)spread_of(r, offsetof(dz_rank_figures, blocks_taken_over)).sum, "this_start_only", r->resumed, "planned_imbalance",
        r->planned_imbalance, "mem_per_rank_bytes", (json_int_t)opt->mem_per_rank, "notes", dz_json_lines(&r->notes), "per_rank", ranks);
}

static json_t *stamp_json(time_t when) {
    char stamp[32];
    struct tm tm;
    strftime(stamp, sizeof stamp, "%FT%TZ", gmtime_r(&when, &tm));
    return json_string(stamp);
}

/* The lines of an error. */
static json_t *errors_json(const dz_error *err) {
    json_t *errors = json_array();
    for (const char *at = err && err->rc != DZ_OK ? err->text : ""; *at;) {
        size_t len = strcspn(at, "\n");
        json_array_append_new(errors, dz_json_text(at, len));
        at += len + (at[len] == '\n');
    }
    return errors;
}

/* SIZE<tab>NANOSECONDS<tab>PATH lines. */
static json_t *files_json(const dz_buf *lines) {
    json_t *list = json_array();
    for (size_t at = 0; at < lines->len; at += strcspn((const char *)lines->data + at, "\n") + 1) {
        const char *size = (const char *)lines->data + at, *when = size + strcspn(size, "\t") + 1, *path = when + strcspn(when, "\t") + 1;
        json_array_append_new(list, json_pack("{s:o, s:I, s:I}", "path", dz_json_text(path, strcspn(path, "\n")), "size",
                                              (json_int_t)strtoll(size, NULL, 10), "mtime_ns", (json_int_t)strtoll(when, NULL, 10)));
    }
    return list;
}

json_t *dz_coverage_json(const dz_coverage *v) {
    json_t *list = json_array();
    for (size_t i = 0; i < v->n; i++) {
        const dz_covered *one = &v->list[i];
        json_array_append_new(
            list, json_pack("{s:o, s:o, s:s, s:o, s:I, s:o, s:o}", "task", one->name ? text_json(one->name) : json_null(), "path",
                            text_json(one->path), "cover", dz_cover_name(one->cover), "quality",
                            one->cover == DZ_COVER_EXACT || one->cover == DZ_COVER_LOSSY ? json_string(dz_verdict_name(one->verdict))
                                                                                         : json_null(),
                            "bytes", (json_int_t)one->bytes, "why", text_json(one->why), "files", files_json(&one->files)));
    }
    return list;
}

json_t *dz_verify_job_json(const dz_job_state *state, const char *archive, const char *base, const struct stat *st,
                           const dz_verify_result *r, const dz_coverage *coverage) {
    const dz_error *err = state->err;
    json_t *job = json_pack("{s:s, s:s, s:o, s:s, s:i, s:o, s:o, s:o, s:o, s:i, s:f}", "version", DZ_VERSION, "command", "verify",
                            "archive", text_json(archive), "state", state->state, "exit_code", dz_exit_code(err->rc), "errors",
                            errors_json(err), "slurm", slurm_json(), "started", stamp_json(state->started), "finished",
                            stamp_json(time(NULL)), "ranks", state->nranks, "seconds", state->secs);
    json_t *facts =
        json_pack("{s:I, s:I, s:b, s:o, s:b, s:I, s:I, s:I, s:I}", "archive_bytes", (json_int_t)st->st_size, "archive_mtime_ns",
                  (json_int_t)dz_mtime_ns(st), "sound", r->finished && r->damage.count == 0, "base", base ? text_json(base) : json_null(),
                  "base_right", base && r->finished && err->rc == DZ_OK, "damage_count", (json_int_t)r->damage.count, "tasks",
                  (json_int_t)r->ntasks, "tensors", (json_int_t)r->ntensors, "blocks", (json_int_t)r->nblocks);
    json_t *all = json_pack("{s:o, s:o}", "job", job, "verify", facts);
    if (coverage->n && all) json_object_set_new(all, "originals", dz_coverage_json(coverage));
    return all;
}

/* What --update made of each task. */
static json_t *update_json(const dz_buf *lines) {
    json_t *list = json_array();
    for (size_t at = 0; at < lines->len; at += strcspn((const char *)lines->data + at, "\n") + 1) {
        const char *name = (const char *)lines->data + at, *action = name + strcspn(name, "\t") + 1,
                   *why = action + strcspn(action, "\t") + 1;
        json_array_append_new(list,
                              json_pack("{s:o, s:o, s:o}", "task", dz_json_text(name, (size_t)(action - name) - 1), "action",
                                        dz_json_text(action, (size_t)(why - action) - 1), "why", dz_json_text(why, strcspn(why, "\n"))));
    }
    return list;
}

json_t *dz_job_json(const dz_job_state *state, const dz_compress_result *r, const dz_catalog *c, const dz_compress_options *opt) {
    const dz_error *err = state->err;
    json_t *root = c ? dz_info_json(c, NULL, NULL, NULL) : json_object();
    json_t *job = json_pack("{s:s, s:o, s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:i, s:f}", "version", DZ_VERSION, "manifest",
                            text_json(opt->manifest), "archive", text_json(opt->archive), "state", state->state, "exit_code",
                            err ? json_integer(dz_exit_code(err->rc)) : json_null(), "errors", errors_json(err), "slurm", slurm_json(),
                            "started", stamp_json(state->started), "finished", err ? stamp_json(time(NULL)) : json_null(), "ranks",
                            state->nranks, "seconds", state->secs);
    if (opt->update) json_object_set_new(job, "update", update_json(&r->update));
    json_t *figures = r->ranks ? figures_json(r, opt) : json_object();
    json_object_update(job, figures);
    json_decref(figures);
    json_object_set_new(root, "job", job);
    return root;
}

json_t *dz_damage_json(const dz_damage *damage) {
    json_t *list = json_array();
    dz_damage_record r;
    for (size_t at = 0; dz_damage_next(damage, &at, &r);)
        json_array_append_new(list, json_pack("{s:o, s:o, s:o, s:o}", "task", r.task[0] ? text_json(r.task) : json_null(), "tensor",
                                              r.tensor[0] ? text_json(r.tensor) : json_null(), "block",
                                              r.block >= 0 ? json_integer(r.block) : json_null(), "message", text_json(r.text)));
    return list;
}
