#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/picture.h"
#include "cli/plot_scores.h"
#include "cli/report.h"
#include "cli/table.h"

/* "0.0123", "-" where there is none. */
static const char *score_text(double x, char text[24]) {
    if (isnan(x))
        snprintf(text, 24, "-");
    else
        snprintf(text, 24, "%.5g", x);
    return text;
}

static void print_candidate(const dz_tuned_task *t, const dz_tune_candidate *c, const dz_drop_limit *limit) {
    char noise[24], size[32], score[24], drop[24];
    const char *word = c == t->chosen ? "  chosen" : dz_drop_ok(limit, t->state.original, c->score) ? "" : "  too much";
    snprintf(noise, sizeof noise, "%g", c->noise);
    printf("  %11s %10s %7.1fx %10s %10s%s\n", noise, dz_format_size(c->stored, size), c->stored > 0 ? t->source / c->stored : 0,
           isnan(c->score) ? "nan" : score_text(c->score, score), score_text(dz_drop(limit, t->state.original, c->score), drop), word);
}

static int by_noise(const void *x, const void *y) {
    const dz_tune_candidate *a = *(const dz_tune_candidate *const *)x, *b = *(const dz_tune_candidate *const *)y;
    return (a->noise > b->noise) - (a->noise < b->noise);
}

/* Size against score of every task that was scored. */
static void print_scores(const dz_tune_result *r, const dz_drop_limit *limit) {
    char original[24], base[24], name[256];
    for (size_t t = 0; t < r->ntasks; t++) {
        const dz_tuned_task *task = &r->tasks[t];
        const dz_tune_candidate *list[sizeof task->state.candidates / sizeof *task->state.candidates];
        if (!task->scored) continue;
        printf("%s: original %s, base %s, %d evaluation%s\n", dz_table_name(task->name, 40, name),
               score_text(task->state.original, original), score_text(task->state.base, base), task->state.evaluations,
               task->state.evaluations == 1 ? "" : "s");
        printf("  %11s %10s %8s %10s %10s\n", "noise/delta", "stored", "whole", "score", "drop");
        if (!task->chosen) printf("  %11s %10s %8s %10s %10s  chosen\n", "lossless", "", "", original, "0");
        for (size_t i = 0; i < task->state.ncandidates; i++) list[i] = &task->state.candidates[i];
        qsort(list, task->state.ncandidates, sizeof *list, by_noise);
        for (size_t i = 0; i < task->state.ncandidates; i++) print_candidate(task, list[i], limit);
        if (dz_drop_ok(limit, task->state.original, task->state.base))
            printf("  note: the base itself is within the limit: the task adds nothing that this\n  evaluation sees\n");
        putchar('\n');
    }
}

static void print_plan(const dz_tune_result *r, const dz_tune_options *opt) {
    char size[32], name[256];
    unsigned steps = dz_tune_forecast_steps(opt);
    double most = 0;
    size_t n = opt->ntasks ? opt->ntasks : r->ntasks;
    printf("%zu task%s, at most %zu evaluations: original, base and %u candidates of each\n\n", n, n == 1 ? "" : "s", n * (opt->steps + 2),
           opt->steps);
    printf("expected bytes, by the noise_to_delta of a search's first three candidates\n%-12s", "task");
    for (unsigned k = 1; k < 1U << steps; k++) printf(" %8.3g", dz_tune_rung(k, steps));
    putchar('\n');
    for (size_t t = 0; t < r->ntasks; t++) {
        const dz_tuned_task *task = &r->tasks[t];
        printf("%-12s", dz_table_name(task->name, 12, name));
        for (unsigned k = 1; k < 1U << steps; k++) printf(" %8s", dz_format_size(task->forecast[k], size));
        putchar('\n');
        most = fmax(most, task->source);
    }
    printf("\nscratch: %s for one restored model and its archive at a time\nthe first command:\n  %s\n", dz_format_size(1.3 * most, size),
           opt->command);
}

static dz_rc print_plan_json(const dz_tune_result *r, const dz_tune_options *opt, dz_error *err) {
    unsigned steps = dz_tune_forecast_steps(opt);
    size_t n = opt->ntasks ? opt->ntasks : r->ntasks;
    json_t *tasks = json_array();
    for (size_t t = 0; t < r->ntasks; t++) {
        json_t *list = json_array();
        for (unsigned k = 1; k < 1U << steps; k++)
            json_array_append_new(
                list, json_pack("{s:f, s:f}", "noise_to_delta", dz_tune_rung(k, steps), "predicted_stored_bytes", r->tasks[t].forecast[k]));
        json_array_append_new(
            tasks, json_pack("{s:s, s:f, s:o}", "name", r->tasks[t].name, "source_bytes", r->tasks[t].source, "candidates", list));
    }
    return dz_print_json(json_pack("{s:I, s:i, s:o}", "most_evaluations", (json_int_t)(n * (opt->steps + 2)), "candidates_of_each",
                                   (int)opt->steps, "tasks", tasks),
                         NULL, err);
}

static json_t *candidate_json(const dz_tuned_task *t, const dz_tune_candidate *c, const dz_drop_limit *limit) {
    return json_pack("{s:f, s:f, s:o, s:b, s:b}", "noise_to_delta", c->noise, "stored_bytes", c->stored, "score", dz_json_number(c->score),
                     "within_limit", dz_drop_ok(limit, t->state.original, c->score), "exact", c->exact);
}

static dz_rc print_json(const dz_tune_result *r, const dz_tune_options *opt, dz_error *err) {
    json_t *tasks = json_array();
    for (size_t t = 0; t < r->ntasks; t++) {
        const dz_tuned_task *task = &r->tasks[t];
        json_t *list = json_array();
        if (!task->scored) continue;
        for (size_t i = 0; i < task->state.ncandidates; i++)
            json_array_append_new(list, candidate_json(task, &task->state.candidates[i], &opt->limit));
        json_array_append_new(tasks, json_pack("{s:s, s:f, s:o, s:s, s:i, s:o}", "name", task->name, "original", task->state.original,
                                               "base", dz_json_number(task->state.base), "setting", task->setting, "evaluations",
                                               task->state.evaluations, "candidates", list));
    }
    return dz_print_json(json_pack("{s:s, s:b, s:o}", "archive", opt->archive, "published", r->published, "tasks", tasks), NULL, err);
}

/* Rank 0. */
static dz_rc report(const dz_tune_result *r, const dz_tune_options *opt, const char *picture, int json, dz_error *err) {
    dz_archive *archive = NULL;
    if (picture) dz_plot_scores(r, &opt->limit, picture, err);
    if (json) return print_json(r, opt, err);
    print_scores(r, &opt->limit);
    if (!r->published) {
        printf("the scores are in %s.tune; the same command without --task makes the archive\n", opt->archive);
        return err->rc;
    }
    if (dz_archive_open(opt->archive, &archive, err) != DZ_OK) return err->rc;
    dz_print_notes(&r->compress.notes);
    printf("%s:\n", opt->archive);
    dz_print_tasks(archive->catalog, NULL);
    dz_print_scores(archive->catalog);
    dz_archive_close(archive);
    return err->rc;
}

static dz_rc check_options(dz_tune_options *opt, const char *drop, const char *better, const char *picture, int steps, dz_error *err) {
    const dz_required needed[] = {{opt->command != NULL, "--eval 'COMMAND {model} {task}'"},
                                  {drop != NULL, "--max-drop X"},
                                  {opt->archive != NULL, "-o ARCHIVE"},
                                  {0, NULL}};
    if (dz_require(&DZ_CMD_TUNE, needed, err) != DZ_OK) return err->rc;
    if (!strstr(opt->command, "{model}"))
        return dz_fail(err, DZ_EUSAGE, "tune: --eval: the command has no {model}, the path of what is to be scored");
    if (!dz_drop_limit_parse(drop, &opt->limit))
        return dz_fail(err, DZ_EUSAGE,
                       "tune: --max-drop: '%s' is neither a number from 0 on (0.01) nor a share of the original's score (0.5%%)", drop);
    opt->limit.lower_better = strcmp(better, "lower") == 0;
    if (!opt->limit.lower_better && strcmp(better, "higher") != 0)
        return dz_fail(err, DZ_EUSAGE, "tune: --better: '%s' is neither higher nor lower", better);
    if (steps < 1 || steps > DZ_TUNE_MOST_STEPS)
        return dz_fail(err, DZ_EUSAGE, "tune: --max-evaluations: %d is not from 1 to %d", steps, DZ_TUNE_MOST_STEPS);
    opt->steps = (unsigned)steps;
    return picture ? dz_picture_check(picture, err) : DZ_OK;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_tune_options opt = {.mem_per_rank = (uint64_t)2 << 30};
    dz_tune_result result = {0};
    dz_option_list sets = {0}, tasks = {0};
    const char *drop = NULL, *better = "higher", *picture = NULL, *args[1];
    int helped = 0, steps = 5, json = 0, watchdog = 1800;
    const dz_option options[] = {
        {"eval", 0, DZ_OPTION_TEXT, &opt.command, "COMMAND", "prints the score of {model} on {task}, as its last number; also {base}"},
        {"max-drop", 0, DZ_OPTION_TEXT, &drop, "X|X%", "what a task may lose: of the score (0.01), or of it in percent (0.5%)"},
        {"better", 0, DZ_OPTION_TEXT, &better, "higher|lower", "which scores are better (higher)"},
        {"output", 'o', DZ_OPTION_TEXT, &opt.archive, "ARCHIVE", "the HDF5 file to write; scores so far are in ARCHIVE.tune"},
        {"max-evaluations", 0, DZ_OPTION_INT, &steps, "N", "candidates that are scored of each task (5); the base and original come to it"},
        {"task", 't', DZ_OPTION_LIST, &tasks, "NAME", "score only this task, make no archive; may be repeated"},
        {"dry-run", 'n', DZ_OPTION_FLAG, &opt.dry_run, NULL, "print candidates, sizes and the number of evaluations; run nothing"},
        {"scratch", 0, DZ_OPTION_TEXT, &opt.scratch, "DIR", "where candidates are restored (ARCHIVE.tune)"},
        {"plot", 0, DZ_OPTION_TEXT, &picture, "FILE", "draw score against size, as .svg or .png"},
        {"recipe", 0, DZ_OPTION_TEXT, &opt.recipe.recipe, "FILE|NAME", "as for compress; of method auto"},
        {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "as for compress"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing archive"},
        {"allow-lossy-input", 0, DZ_OPTION_FLAG, &opt.allow_lossy, NULL, "also models restored from a lossy archive"},
        {"mem-per-rank", 0, DZ_OPTION_SIZE, &opt.mem_per_rank, "SIZE", "memory of each rank (2G); at least 128M"},
        {"watchdog", 0, DZ_OPTION_INT, &watchdog, "SECONDS", "as for compress; the command may take any time"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_TUNE, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    opt.manifest = args[0];
    opt.recipe.sets = sets.values;
    opt.recipe.nsets = sets.n;
    opt.tasks = tasks.values;
    opt.ntasks = tasks.n;
    opt.watchdog = watchdog;
    if ((rc = dz_sync_error(world, check_options(&opt, drop, better, picture, steps, err), err)) != DZ_OK) goto out;
    if ((rc = dz_tune(world, &opt, &result, err)) != DZ_OK) goto out;
    if (world->rank == 0 && opt.dry_run && json) print_plan_json(&result, &opt, err);
    if (world->rank == 0 && opt.dry_run && !json) print_plan(&result, &opt);
    if (world->rank == 0 && !opt.dry_run) report(&result, &opt, picture, json, err);
    rc = dz_sync_error(world, err->rc, err);
out:
    dz_tune_result_free(&result);
    dz_option_list_free(&sets);
    dz_option_list_free(&tasks);
    return rc;
}

const dz_command DZ_CMD_TUNE = {
    "tune",
    "ZOO.yaml --eval 'COMMAND {model} {task}' --max-drop X[%] -o ARCHIVE [--better higher|lower] [--max-evaluations N] [--task NAME]... "
    "[--dry-run] [--plot FILE]",
    "Finds the smallest archive whose tasks keep their scores, by your own evaluation.", run,
    "deltazoo tune zoo.yaml --eval 'python3 score.py {model} {task}' --max-drop 0.01 -o tuned.h5 --dry-run\n"
    "deltazoo tune zoo.yaml --eval 'python3 score.py {model} {task}' --max-drop 0.5% -o tuned.h5 --plot scores.svg"};
