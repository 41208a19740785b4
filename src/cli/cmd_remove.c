#include <stdio.h>
#include <string.h>

#include "archive_ops/repack.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"

static dz_rc rewrite(const dz_world *world, const dz_rewrite_options *opt, dz_error *err) {
    dz_rewrite_result result = {0};
    char before[32], after[32];
    dz_rc rc = dz_rewrite(world, opt, &result, err);
    if (rc == DZ_OK && world->rank == 0)
        printf("%s: %zu task%s, %s (%s: %s)\n", opt->out, result.ntasks, result.ntasks == 1 ? "" : "s",
               dz_format_size((double)result.bytes_after, after), opt->out == opt->archive ? "before" : opt->archive,
               dz_format_size((double)result.bytes_before, before));
    for (size_t at = 0; rc == DZ_OK && at < result.foreign.len;) {
        const char *line = (const char *)result.foreign.data + at;
        int len = (int)strcspn(line, "\n");
        dz_message("note", "%s: %.*s is not of the archive: not taken along", opt->out, len, line);
        at += (size_t)len + 1;
    }
    dz_buf_free(&result.foreign);
    return rc;
}

static dz_rc run_remove(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_option_list tasks = {0};
    dz_rewrite_options opt = {0};
    const char *args[1], *base = NULL;
    int helped = 0, rebase = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_LIST, &tasks, "NAME", "the task to remove; may be repeated"},
        {"rebase", 0, DZ_OPTION_FLAG, &rebase, NULL, "code what is coded against it anew, exactly as it restores"},
        {"base", 'b', DZ_OPTION_TEXT, &base, "PATH", "for --rebase: the base model, if the archive does not hold it"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_REMOVE, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (tasks.n == 0) {
        rc = dz_fail(err, DZ_EUSAGE, "remove: --task NAME is needed (deltazoo remove --help)");
        goto out;
    }
    opt =
        (dz_rewrite_options){.archive = args[0], .out = args[0], .leave = tasks.values, .nleave = tasks.n, .rebase = rebase, .base = base};
    rc = rewrite(world, &opt, err);
out:
    dz_option_list_free(&tasks);
    return rc;
}

static dz_rc run_repack(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_option_list tasks = {0};
    dz_rewrite_options opt = {0};
    const char *args[1];
    int helped = 0;
    const dz_option options[] = {{"output", 'o', DZ_OPTION_TEXT, &opt.out, "ARCHIVE", "write here (by default: in place of the archive)"},
                                 {"task", 't', DZ_OPTION_LIST, &tasks, "NAME", "take only this task; may be repeated; needs -o"},
                                 {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing output"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_REPACK, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (tasks.n && !opt.out) {
        rc = dz_fail(err, DZ_EUSAGE,
                     "repack: --task takes some tasks into another archive: -o ARCHIVE is needed ('remove' drops them here)");
        goto out;
    }
    opt.archive = args[0];
    if (!opt.out) opt.out = args[0];
    opt.take = tasks.values;
    opt.ntake = tasks.n;
    rc = rewrite(world, &opt, err);
out:
    dz_option_list_free(&tasks);
    return rc;
}

const dz_command DZ_CMD_REMOVE = {"remove", "ARCHIVE --task NAME... [--rebase [--base PATH]]",
                                  "Removes tasks from an archive; the others keep their bytes.", run_remove,
                                  "deltazoo remove zoo.h5 --task code"};
const dz_command DZ_CMD_REPACK = {"repack", "ARCHIVE [-o ARCHIVE [--task NAME]...]",
                                  "Rewrites an archive with only what its tasks need, or copies some of its tasks into another archive.",
                                  run_repack,
                                  "deltazoo repack zoo.h5\n"
                                  "deltazoo repack zoo.h5 -o math.h5 --task math"};
