#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "archive/reader.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "pipeline/compress.h"

static void print_headline(const dz_catalog *c, const dz_compress_options *opt, const dz_compress_result *r) {
    int64_t at = dz_catalog_find(c, r->task);
    const dz_task_entry *task = &c->tasks[at < 0 ? 0 : at];
    char some[48] = "";
    if (r->ntasks < c->ntasks) snprintf(some, sizeof some, ", %zu by this job:", r->ntasks);
    printf("%s: %zu task%s%s%s recipe %s, sparsity %g, %u bits, seed %llu\n\n", opt->archive, c->ntasks, c->ntasks == 1 ? "" : "s", some,
           some[0] ? "" : ",", r->recipe_name, task->sparsity, task->bits, (unsigned long long)task->seed);
}

/* Rank 0: tells the result as the archive has it, not as the job remembers it. */
static dz_rc tell(const dz_compress_options *opt, const dz_compress_result *r, dz_error *err) {
    dz_archive *archive = NULL;
    if (r->nothing_to_do) {
        printf("%s: has all tasks of %s already\n", opt->archive, opt->manifest);
        return DZ_OK;
    }
    if (dz_archive_open(opt->archive, &archive, err) != DZ_OK) return err->rc;
    dz_print_notes(&r->notes);
    print_headline(archive->catalog, opt, r);
    dz_print_tasks(archive->catalog);
    dz_print_phases(r);
    if (opt->report) dz_print_json(dz_job_json(r, archive->catalog, opt), opt->report, err);
    dz_archive_close(archive);
    return err->rc;
}

/* A report that cannot be written is found before the work. */
static dz_rc check_report(const char *path, dz_error *err) {
    char *dir = dz_path_beside(path, ".", err);
    struct stat st;
    if (!dir) return err->rc;
    if (access(dir, W_OK | X_OK) != 0 || (stat(path, &st) == 0 && !S_ISREG(st.st_mode)))
        dz_fail(err, DZ_EUSAGE, "--report %s: cannot be written", path);
    free(dir);
    return err->rc;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_compress_options opt = {.mem_per_rank = (uint64_t)2 << 30};
    dz_option_list sets = {0};
    dz_compress_result result = {0};
    dz_option_list hints = {0};
    const char *io = "posix", *args[1];
    int helped = 0, watchdog = 1800;
    const dz_option options[] = {
        {"output", 'o', DZ_OPTION_TEXT, &opt.archive, "ARCHIVE", "the HDF5 file to write"},
        {"recipe", 0, DZ_OPTION_TEXT, &opt.recipe.recipe, "FILE|NAME", "what is done to which tensor (by default: by architecture)"},
        {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "overrides one key of the recipe; may be repeated"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing archive"},
        {"append", 0, DZ_OPTION_FLAG, &opt.append, NULL, "add the zoo's tasks to an existing archive"},
        {"replace", 0, DZ_OPTION_FLAG, &opt.replace, NULL, "append, taking the place of tasks of the same name"},
        {"skip-existing", 0, DZ_OPTION_FLAG, &opt.skip_existing, NULL, "append only tasks that the archive has not"},
        {"mem-per-rank", 0, DZ_OPTION_SIZE, &opt.mem_per_rank, "SIZE", "memory each rank may use (2G); it needs 128M at least"},
        {"io", 0, DZ_OPTION_TEXT, &io, "posix|collective", "how the archive is written: by each rank for itself, or by MPI-IO"},
        {"io-hint", 0, DZ_OPTION_LIST, &hints, "KEY=VALUE", "a hint for MPI-IO (cb_nodes=8); may be repeated"},
        {"report", 0, DZ_OPTION_TEXT, &opt.report, "FILE.json", "what was done, for programs"},
        {"watchdog", 0, DZ_OPTION_INT, &watchdog, "SECONDS", "end with code 75 after so long without progress (1800; 0: never)"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_COMPRESS, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (!opt.archive) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: -o ARCHIVE is needed (deltazoo compress --help)");
        goto out;
    }
    if (opt.force && (opt.append || opt.replace || opt.skip_existing)) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --force would do away with what --append keeps; give one of them");
        goto out;
    }
    if (strcmp(io, "posix") != 0 && strcmp(io, "collective") != 0) {
        rc = dz_fail(err, DZ_EUSAGE, "compress: --io: '%s' is neither posix nor collective", io);
        goto out;
    }
    opt.io = strcmp(io, "collective") == 0 ? DZ_IO_COLLECTIVE : DZ_IO_POSIX;
    opt.hints = hints.values;
    opt.nhints = hints.n;
    opt.append |= opt.replace || opt.skip_existing;
    opt.watchdog = watchdog;
    opt.manifest = args[0];
    opt.recipe.sets = sets.values;
    opt.recipe.nsets = sets.n;
    if ((rc = dz_agree(world, world->rank == 0 && opt.report ? check_report(opt.report, err) : DZ_OK, err)) != DZ_OK) goto out;
    rc = dz_compress(world, &opt, &result, err);
    if (rc == DZ_OK) rc = dz_agree(world, world->rank == 0 ? tell(&opt, &result, err) : DZ_OK, err);
out:
    dz_compress_result_free(&result);
    dz_option_list_free(&sets);
    dz_option_list_free(&hints);
    return rc;
}

const dz_command DZ_CMD_COMPRESS = {
    "compress", "ZOO.yaml -o ARCHIVE [--recipe FILE|NAME] [--set KEY=VALUE]... [--append] [--mem-per-rank SIZE] [--report FILE.json]",
    "Compresses the fine-tuned models of a zoo against their base into one archive.", run,
    "deltazoo compress zoo.yaml -o zoo.h5\n"
    "mpirun -n 2 deltazoo compress zoo.yaml -o zoo.h5 --force --set sparsity=0.99 --report job.json\n"
    "deltazoo compress zoo.yaml -o small.h5 --set method=auto --set target_ratio=100\n"
    "deltazoo compress zoo.yaml -o zoo.h5 --skip-existing"};
