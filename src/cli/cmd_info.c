#include <stdio.h>

#include "archive/reader.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/picture.h"
#include "cli/plot.h"
#include "cli/report.h"
#include "restore/restore.h"

static dz_rc print_info(const char *path, const char *name, const char *picture, int json, int wide, int names, dz_error *err) {
    dz_archive *a = NULL;
    const dz_task_entry *task = NULL;
    dz_buf warnings = {0};
    size_t ndamaged = 0;
    if (dz_archive_open_partly(path, &a, err) != DZ_OK) return err->rc;
    if (name && dz_archive_task(a, name, &task, err) != DZ_OK) goto out;
    for (size_t t = 0; names && t < a->catalog->ntasks; t++) printf("%s\n", a->catalog->tasks[t].name);
    if (names) goto out;
    if (picture && dz_picture_check(picture, err) != DZ_OK) goto out;
    if (picture && !task && a->catalog->ntasks == 0) {
        dz_fail(err, DZ_EUSAGE, "%s: has no task that could be plotted", path);
        goto out;
    }
    if (picture && dz_plot_archive(a->catalog, task, picture, err) != DZ_OK) goto out;
    if (json) {
        dz_print_json(dz_info_json(a->catalog, task), NULL, err);
        goto lost;
    }
    char base[DZ_BASE_TEXT];
    printf("%s: format %u, written by %s\nbase %s\n\n", path, a->catalog->format_version, a->catalog->generator,
           dz_catalog_base_text(a->catalog, base));
    dz_print_tasks(a->catalog);
    dz_print_scores(a->catalog);
    putchar('\n');
    dz_print_largest(a->catalog, task);
    for (size_t t = 0; t < a->catalog->ntasks; t++) dz_task_warnings(a->catalog, &a->catalog->tasks[t], &warnings, err);
    dz_print_notes(&warnings);
    if (task) {
        printf("\n%s: recipe %s, key %016llx\n%s", task->name, task->recipe, (unsigned long long)task->key, task->recipe_text);
        dz_print_tensors(a->catalog, task, wide);
    }
lost:
    for (size_t i = 0; i < a->catalog->nlost; i++) {
        const dz_lost *one = &a->catalog->lost[i];
        if (one->unread) dz_fail_more(err, DZ_EFAIL, "%s", one->text);
        ndamaged += !one->unread;
        if (!one->unread) dz_message("damage", "%s", one->text);
    }
    if (ndamaged) dz_fail_more(err, DZ_EDAMAGE, "%s: is damaged, %zu of its tasks cannot be read", path, ndamaged);
out:
    dz_buf_free(&warnings);
    dz_archive_close(a);
    return err->rc;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *task = NULL, *picture = NULL, *args[1];
    int json = 0, wide = 0, names = 0, helped = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_TEXT, &task, "NAME", "also this task's tensors and recipe"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
        {"wide", 0, DZ_OPTION_FLAG, &wide, NULL, "all columns and full names of tensors, in more than 80 columns"},
        {"plot", 0, DZ_OPTION_TEXT, &picture, "FILE",
         "draw into FILE.svg or FILE.png: bytes and noise by layer of the task; without --task of all, and their sizes and rates"},
        {"names", 0, DZ_OPTION_FLAG, &names, NULL, "only the tasks' names, one per line"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_INFO, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    return dz_sync_error(world, world->rank == 0 ? print_info(args[0], task, picture, json, wide, names, err) : DZ_OK, err);
}

const dz_command DZ_CMD_INFO = {"info", "ARCHIVE [--task NAME] [--json|--wide|--names] [--plot FILE]",
                                "Shows the contents of an archive: tasks, sizes, ratios.", run,
                                "deltazoo info zoo.h5\n"
                                "deltazoo info zoo.h5 --task math --json\n"
                                "deltazoo info zoo.h5 --plot zoo.svg"};
