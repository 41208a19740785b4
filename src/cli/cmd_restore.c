#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "restore/restore.h"

/* NAME or NAME=WEIGHT, each. */
static dz_rc take_weights(const dz_option_list *list, char ***names, double **weights, dz_error *err) {
    *names = dz_alloc(list->n, sizeof **names, err);
    *weights = dz_alloc(list->n, sizeof **weights, err);
    for (size_t t = 0; t < list->n && err->rc == DZ_OK; t++) {
        const char *equals = strchr(list->values[t], '=');
        char *end = NULL;
        (*weights)[t] = equals ? strtod(equals + 1, &end) : 1;
        if (equals && (end == equals + 1 || *end || !isfinite((*weights)[t])))
            dz_fail(err, DZ_EUSAGE, "restore: --task %s: '%s' is not a weight (a number: math=0.6)", list->values[t], equals + 1);
        else
            (*names)[t] = dz_strndup(list->values[t], equals ? (size_t)(equals - list->values[t]) : strlen(list->values[t]), err);
    }
    return err->rc;
}

/* "math", or "0.6 * math + 0.4 * code". */
static void print_sum(const char *const *names, const double *weights, size_t n) {
    for (size_t t = 0; t < n; t++) {
        if (n > 1 || weights[t] != 1)
            printf("%s%g * %s", t ? " + " : "", weights[t], names[t]);
        else
            printf("%s", names[t]);
    }
}

/* One task, or a sum; what was done is printed. */
static dz_rc restore_one(const dz_world *world, const dz_restore_options *opt, dz_error *err) {
    dz_restore_result result = {0};
    dz_rc rc = dz_restore(world, opt, &result, err);
    int damaged = rc == DZ_EDAMAGE && err->rc == DZ_OK;
    if (damaged && world->rank == 0) dz_print_damage(&result.damage);
    if (world->rank == 0) dz_print_notes(&result.notes);
    if (rc == DZ_OK && opt->dry_run && world->rank == 0) {
        printf("%s: would get task ", opt->out);
        print_sum(opt->tasks, opt->weights, opt->ntasks);
        printf("; nothing was made\n");
    } else if ((rc == DZ_OK || damaged) && world->rank == 0) {
        char size[32], memory[32];
        printf("%s: task ", opt->out);
        print_sum(opt->tasks, opt->weights, opt->ntasks);
        printf(", %llu tensors,\n%s in %llu file%s, %.2f s, peak memory %s per rank\n", (unsigned long long)result.ntensors,
               dz_format_size((double)result.nbytes, size), (unsigned long long)result.nfiles, result.nfiles == 1 ? "" : "s", result.secs,
               dz_format_size(result.peak_memory, memory));
    }
    if (damaged && world->rank == 0)
        dz_fail(err, rc, "%s: restored except %llu damaged place%s, listed above", opt->out, (unsigned long long)result.damage.count,
                result.damage.count == 1 ? "" : "s");
    dz_damage_free(&result.damage);
    dz_buf_free(&result.notes);
    return rc;
}

/* Every task that can be read, each into DIR/NAME. One that fails does not keep the others from being restored. */
static dz_rc restore_all(const dz_world *world, dz_restore_options opt, dz_error *err) {
    static const double one = 1;
    dz_archive *archive = NULL;
    const char *out = opt.out;
    dz_rc rc = dz_archive_open_all(world, opt.archive, &archive, err);
    if (rc != DZ_OK) return rc;
    const dz_catalog *c = archive->catalog;
    for (size_t i = 0; i < c->nlost; i++) dz_fail_more(err, dz_lost_rc(&c->lost[i]), "%s", c->lost[i].text);
    opt.weights = &one;
    opt.ntasks = 1;
    for (size_t t = 0; t < c->ntasks; t++) {
        dz_error of_task = {0};
        const char *name = c->tasks[t].name;
        char *folder = dz_format(&of_task, "%s/%s", out, name);
        opt.out = folder;
        opt.tasks = &name;
        if (folder) restore_one(world, &opt, &of_task);
        if (of_task.rc != DZ_OK) dz_fail_join(err, &of_task);
        free(folder);
        if (of_task.rc == DZ_EINTERRUPT) break;
    }
    dz_archive_close(archive);
    return dz_sync_error(world, err->rc, err);
}

static dz_rc take_dtype(const char *name, dz_dtype *dtype, dz_error *err) {
    static const char *const names[] = {"f32", "bf16", "f16"};
    static const dz_dtype types[] = {DZ_F32, DZ_BF16, DZ_F16};
    for (size_t i = 0; i < 3; i++) {
        if (strcmp(name, names[i]) == 0) *dtype = types[i];
    }
    return *dtype != DZ_OPAQUE ? DZ_OK : dz_fail(err, DZ_EUSAGE, "restore: --dtype: '%s' is not f32, bf16 or f16", name);
}

/* -o FILE.safetensors. */
static dz_rc check_one_file(const dz_restore_options *opt, size_t ntasks, int all, dz_error *err) {
    const char *why = all || ntasks > 1 ? "one file takes one task, without --all"
                      : opt->max_shard  ? "one file has no shards: not with --max-shard-size"
                      : opt->keep_going ? "--keep-going says in a deltazoo.json beside the model what is lost"
                                        : NULL;
    return why ? dz_fail(err, DZ_EUSAGE, "%s: %s; give a folder's name", opt->out, why) : DZ_OK;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_restore_options opt = {0};
    dz_option_list tasks = {0};
    char **names = NULL;
    double *weights = NULL;
    const char *dtype = NULL, *args[1];
    int helped = 0, all = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_LIST, &tasks, "NAME[=WEIGHT]", "the task to restore; several are merged: base + sum of weight * delta"},
        {"all", 'a', DZ_OPTION_FLAG, &all, NULL, "every task, each into a folder of its name in DIR"},
        {"sign-consensus", 0, DZ_OPTION_FLAG, &opt.sign_consensus, NULL, "merge only deltas with the sign of the weighted sum (TIES)"},
        {"base", 'b', DZ_OPTION_TEXT, &opt.base, "PATH", "the base model of the archive; not needed if it holds it"},
        {"output", 'o', DZ_OPTION_TEXT, &opt.out, "DIR",
         "the folder for the model's files; FILE.safetensors: the tensors alone, as this file"},
        {"tensor", 0, DZ_OPTION_TEXT, &opt.tensors, "GLOB", "only these tensors, into one file, without other files"},
        {"keep-going", 'k', DZ_OPTION_FLAG, &opt.keep_going, NULL, "go on after damage: restore the rest, name what is lost, exit 3"},
        {"dtype", 0, DZ_OPTION_TEXT, &dtype, "f32|bf16|f16", "write float tensors in this type, lossy ones rounded from float once"},
        {"max-shard-size", 0, DZ_OPTION_SIZE, &opt.max_shard, "SIZE", "new shards of at most this size instead of the original ones"},
        {"dry-run", 'n', DZ_OPTION_FLAG, &opt.dry_run, NULL, "check all, say what would be made and what a sum leaves out"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace files of an earlier restore, and only those"},
        {"no-sync", 0, DZ_OPTION_FLAG, &opt.no_sync, NULL, "do not wait until files are on disk: as fast as cp, and no safer"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_RESTORE, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) {
        dz_option_list_free(&tasks);
        return err->rc;
    }
    dz_rc rc = DZ_OK;
    const dz_required needed[] = {{tasks.n > 0 || all, "--task NAME (or --all)"}, {opt.out != NULL, "-o DIR"}, {0, NULL}};
    if ((rc = dz_require(&DZ_CMD_RESTORE, needed, err)) != DZ_OK) goto out;
    if (all && tasks.n) {
        rc = dz_fail(err, DZ_EUSAGE, "restore: --all restores every task: not with --task");
        goto out;
    }
    if (opt.tensors && opt.max_shard) {
        rc = dz_fail(err, DZ_EUSAGE, "restore: --tensor makes one file: not with --max-shard-size");
        goto out;
    }
    opt.one_file = dz_ends_with(opt.out, ".safetensors");
    if (opt.one_file && (rc = check_one_file(&opt, tasks.n, all, err)) != DZ_OK) goto out;
    if (dtype && (rc = take_dtype(dtype, &opt.dtype, err)) != DZ_OK) goto out;
    opt.archive = args[0];
    if (all) {
        rc = restore_all(world, opt, err);
        goto out;
    }
    if ((rc = dz_sync_error(world, take_weights(&tasks, &names, &weights, err), err)) != DZ_OK) goto out;
    opt.tasks = (const char *const *)names;
    opt.weights = weights;
    opt.ntasks = tasks.n;
    rc = restore_one(world, &opt, err);
out:
    for (size_t t = 0; names && t < tasks.n; t++) free(names[t]);
    free(names);
    free(weights);
    dz_option_list_free(&tasks);
    return rc;
}

const dz_command DZ_CMD_RESTORE = {
    "restore",
    "ARCHIVE --task NAME[=WEIGHT]...|--all --base PATH -o DIR|FILE.safetensors [--tensor GLOB | --max-shard-size SIZE]"
    " [--dtype f32|bf16|f16] [--keep-going]",
    "Restores a task from archive and base, or the weighted sum of several tasks' deltas.", run,
    "deltazoo restore zoo.h5 --task math --base base -o restored\n"
    "mpirun -n 2 deltazoo restore zoo.h5 --task code --base base -o restored-code\n"
    "deltazoo restore zoo.h5 --task math --base base -o some --tensor '*q_proj*'\n"
    "deltazoo restore zoo.h5 --task math --base base -o math.safetensors\n"
    "deltazoo restore zoo.h5 --task math --base base -o wide --dtype f32\n"
    "deltazoo restore zoo.h5 --task math=0.6 --task code=0.4 --base base -o merged\n"
    "deltazoo restore zoo.h5 --task math --base base -o what-is-left --keep-going"};
