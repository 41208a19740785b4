#include <stdio.h>

#include "base/file.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "pipeline/restore.h"

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_restore_options opt = {0};
    dz_restore_result result = {0};
    const char *args[1];
    int helped = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_TEXT, &opt.task, "NAME", "the task to restore"},
        {"base", 'b', DZ_OPTION_TEXT, &opt.base, "PATH", "the base model it was compressed against"},
        {"output", 'o', DZ_OPTION_TEXT, &opt.out, "DIR", "gets the model's files"},
        {"tensor", 0, DZ_OPTION_TEXT, &opt.tensors, "GLOB", "only these tensors, into one file, without side files"},
        {"keep-going", 'k', DZ_OPTION_FLAG, &opt.keep_going, NULL, "past damage: restore what there is, say what is missing, exit 3"},
        {"max-shard-size", 0, DZ_OPTION_SIZE, &opt.max_shard, "SIZE", "new shards of at most this size instead of the original ones"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace files that DIR has"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_RESTORE, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    if (!opt.task || !opt.base || !opt.out) return dz_fail(err, DZ_EUSAGE, "restore: --task NAME, --base PATH and -o DIR are needed");
    if (opt.tensors && opt.max_shard) return dz_fail(err, DZ_EUSAGE, "restore: --tensor makes one file: not with --max-shard-size");
    opt.archive = args[0];
    dz_rc rc = dz_restore(world, &opt, &result, err);
    int damaged = rc == DZ_EDAMAGE && err->rc == DZ_OK;
    if (damaged && world->rank == 0) dz_print_damage(&result.damage);
    if ((rc == DZ_OK || damaged) && world->rank == 0) {
        char size[32], memory[32];
        printf("%s: task %s, %llu tensors, %s in %llu file%s, %.2f s, peak memory %s per rank\n", opt.out, opt.task,
               (unsigned long long)result.ntensors, dz_format_size((double)result.nbytes, size), (unsigned long long)result.nfiles,
               result.nfiles == 1 ? "" : "s", result.secs, dz_format_size(result.peak_memory, memory));
    }
    if (damaged && world->rank == 0)
        dz_fail(err, rc, "%s: restored without what is damaged: %llu place%s, each told above", opt.out,
                (unsigned long long)result.damage.count, result.damage.count == 1 ? "" : "s");
    dz_damage_free(&result.damage);
    return rc;
}

const dz_command DZ_CMD_RESTORE = {"restore", "ARCHIVE --task NAME --base PATH -o DIR [--tensor GLOB | --max-shard-size SIZE] [--keep-going]",
                                   "Restores a task from archive and base.", run,
                                   "deltazoo restore zoo.h5 --task math --base base -o restored\n"
                                   "mpirun -n 2 deltazoo restore zoo.h5 --task code --base base -o restored-code\n"
                                   "deltazoo restore zoo.h5 --task math --base base -o some --tensor '*q_proj*'\n"
                                   "deltazoo restore damaged.h5 --task math --base base -o what-is-left --keep-going"};
