#include <stdio.h>

#include "archive/reader.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/picture.h"
#include "cli/plot.h"
#include "cli/report.h"
#include "restore/restore.h"

typedef struct info_options {
    const char *task, *picture;
    int json, json_lines, wide, names;
    dz_task_filter filter; /* with `task`, `match` is of its tensors */
} info_options;

static dz_rc print_lines(json_t *list, dz_error *err) {
    json_t *one;
    size_t i;
    if (!list) return dz_fail(err, DZ_ENOMEM, "out of memory");
    json_array_foreach(list, i, one) {
        json_dumpf(one, stdout, JSON_COMPACT | JSON_REAL_PRECISION(10)); /* as dz_print_json */
        putchar('\n');
    }
    json_decref(list);
    return DZ_OK;
}

/* A line for each task that is shown, or for each tensor of the one. */
static dz_rc print_json_lines(const dz_catalog *c, const dz_task_entry *task, const dz_task_view *view, const char *match, dz_error *err) {
    if (task) return print_lines(dz_tensors_json(c, task, match), err);
    for (size_t t = 0; t < view->n && err->rc == DZ_OK; t++) {
        json_t *list = json_array();
        json_array_append_new(list, dz_task_json(c, view->tasks[t]));
        print_lines(list, err);
    }
    return err->rc;
}

static void print_text(const dz_catalog *c, const char *path, const dz_task_entry *task, const dz_task_view *view, const info_options *opt,
                       dz_error *err) {
    char base[DZ_BASE_TEXT];
    dz_buf warnings = {0};
    printf("%s: format %u, written by %s\nbase %s\n\n", path, c->format_version, c->generator, dz_catalog_base_text(c, base));
    if (task) {
        dz_print_one_task(c, task);
        dz_task_warnings(c, task, &warnings, err);
    } else {
        dz_print_tasks(c, view);
        dz_print_scores(c);
        for (size_t t = 0; t < view->n; t++) dz_task_warnings(c, view->tasks[t], &warnings, err);
    }
    putchar('\n');
    dz_print_largest(c, task);
    dz_print_notes(&warnings);
    if (task) {
        printf("\n%s: recipe %s, key %016llx\n%s", task->name, task->recipe, (unsigned long long)task->key, task->recipe_text);
        dz_print_tensors(c, task, opt->filter.match, opt->wide);
    }
    dz_buf_free(&warnings);
}

static dz_rc draw(const dz_catalog *c, const char *path, const dz_task_entry *task, const char *picture, dz_error *err) {
    if (!picture || dz_picture_check(picture, err) != DZ_OK) return err->rc;
    if (!task && c->ntasks == 0) return dz_fail(err, DZ_EUSAGE, "%s: has no task that could be plotted", path);
    return dz_plot_archive(c, task, picture, err);
}

/* What cannot be read, after all that can. */
static dz_rc tell_lost(const dz_catalog *c, const char *path, dz_error *err) {
    size_t ndamaged = 0;
    for (size_t i = 0; i < c->nlost; i++) {
        const dz_lost *one = &c->lost[i];
        if (one->unread) dz_fail_more(err, DZ_EFAIL, "%s", one->text);
        ndamaged += !one->unread;
        if (!one->unread) dz_message("damage", "%s", one->text);
    }
    if (ndamaged) dz_fail_more(err, DZ_EDAMAGE, "%s: is damaged, %zu of its tasks cannot be read", path, ndamaged);
    return err->rc;
}

static dz_rc print_info(const char *path, const info_options *opt, dz_error *err) {
    dz_archive *a = NULL;
    const dz_task_entry *task = NULL;
    dz_task_view view = {0};
    dz_task_filter filter = opt->filter;
    if ((opt->task ? dz_archive_open_tasks(path, &opt->task, 1, &a, err) : dz_archive_open_partly(path, &a, err)) != DZ_OK) return err->rc;
    const dz_catalog *c = a->catalog;
    if (opt->task) filter.match = NULL;
    if ((opt->task && dz_archive_task(a, opt->task, &task, err) != DZ_OK) || dz_task_view_make(c, &filter, &view, err) != DZ_OK) goto out;
    for (size_t t = 0; opt->names && t < view.n; t++) printf("%s\n", view.tasks[t]->name);
    if (opt->names || draw(c, path, task, opt->picture, err) != DZ_OK) goto out;
    if (opt->json)
        dz_print_json(dz_info_json(c, task, &view, opt->filter.match), NULL, err);
    else if (opt->json_lines)
        print_json_lines(c, task, &view, opt->filter.match, err);
    else if (opt->filter.columns)
        dz_print_task_columns(c, &view, opt->filter.columns, err);
    else
        print_text(c, path, task, &view, opt, err);
    if (err->rc == DZ_OK) tell_lost(c, path, err);
out:
    dz_task_view_free(&view);
    dz_archive_close(a);
    return err->rc;
}

/* One way to show it, and filters that go together. */
static dz_rc check(const info_options *opt, dz_error *err) {
    const dz_task_filter *f = &opt->filter;
    if (opt->json + opt->json_lines + opt->names + (f->columns != NULL) > 1)
        return dz_fail(err, DZ_EUSAGE, "info: give one of --json, --json-lines, --names and --columns");
    if (opt->task && (f->columns || f->sort || f->skip || f->limit || opt->names))
        return dz_fail(err, DZ_EUSAGE, "info: --task shows one task: of the filters only --match goes with it, for its tensors");
    return dz_task_filter_check(f, err);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[1];
    info_options opt = {0};
    int helped = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_TEXT, &opt.task, "NAME", "only this task, with its tensors and its recipe"},
        {"match", 0, DZ_OPTION_TEXT, &opt.filter.match, "GLOB", "only tasks with such names ('chat-*'); with --task only such tensors"},
        {"sort", 0, DZ_OPTION_TEXT, &opt.filter.sort, "COLUMN", "sort the tasks by a column of --columns; -COLUMN: the other way round"},
        {"columns", 0, DZ_OPTION_TEXT, &opt.filter.columns, "LIST", "only a table with these columns: " DZ_TASK_COLUMNS},
        {"skip", 0, DZ_OPTION_U64, &opt.filter.skip, "N", "leave out the first N tasks"},
        {"limit", 0, DZ_OPTION_U64, &opt.filter.limit, "N", "at most N tasks"},
        {"json", 0, DZ_OPTION_FLAG, &opt.json, NULL, "for programs"},
        {"json-lines", 0, DZ_OPTION_FLAG, &opt.json_lines, NULL, "a JSON object on a line for each task; with --task for each tensor"},
        {"wide", 0, DZ_OPTION_FLAG, &opt.wide, NULL, "all columns and full names of tensors, in more than 80 columns"},
        {"plot", 0, DZ_OPTION_TEXT, &opt.picture, "FILE",
         "draw into FILE.svg or FILE.png: bytes and noise by layer of the task; without --task of all, and their sizes and rates"},
        {"names", 0, DZ_OPTION_FLAG, &opt.names, NULL, "only the tasks' names, one per line"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_INFO, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    if (check(&opt, err) != DZ_OK) return err->rc;
    return dz_sync_error(world, world->rank == 0 ? print_info(args[0], &opt, err) : DZ_OK, err);
}

const dz_command DZ_CMD_INFO = {"info",
                                "ARCHIVE [--task NAME] [--match GLOB] [--sort COLUMN] [--columns LIST] [--skip N] [--limit N] "
                                "[--json|--json-lines|--wide|--names] [--plot FILE]",
                                "Shows the contents of an archive: tasks, sizes, ratios.", run,
                                "deltazoo info zoo.h5\n"
                                "deltazoo info zoo.h5 --task math --json\n"
                                "deltazoo info zoo.h5 --match 'm*' --sort -stored --columns name,stored,quality --limit 20\n"
                                "deltazoo info zoo.h5 --plot zoo.svg"};
