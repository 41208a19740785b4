#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "parallel/progress.h"
#include "synth/synth.h"
#include "synth/synth_delta.h"

static int count_bytes(void *arg, uint64_t nbytes) {
    dz_progress_add(arg, (double)nbytes);
    return 0;
}

static dz_rc choose_types(const char *dtype, const char *tails, dz_synth_options *opt, dz_error *err) {
    opt->dtype = strcmp(dtype, "f32") == 0 ? DZ_F32 : strcmp(dtype, "f16") == 0 ? DZ_F16 : strcmp(dtype, "bf16") == 0 ? DZ_BF16 : DZ_OPAQUE;
    if (opt->dtype == DZ_OPAQUE) return dz_fail(err, DZ_EUSAGE, "--dtype %s: not one of f32, f16, bf16", dtype);
    opt->gauss = strcmp(tails, "gauss") == 0;
    if (opt->gauss || strcmp(tails, "t") == 0) return DZ_OK;
    if (tails[0] != 't' || tails[1] < '0' + DZ_SYNTH_DF_MIN || tails[1] > '0' + DZ_SYNTH_DF_MAX || tails[2] != '\0')
        return dz_fail(err, DZ_EUSAGE, "--tails %s: not one of gauss, t, t4 to t8", tails);
    opt->df = tails[1] - '0';
    return DZ_OK;
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_synth_options opt = {.model = "tiny", .tasks = 4, .seed = 42};
    const char *dtype = "bf16", *tails = "t";
    int helped = 0, quiet = 0, layers = -1;
    const dz_option options[] = {
        {"shape", 0, DZ_OPTION_TEXT, &opt.model, "NAME",
         "tiny, vit-b-32, vit-l-14, roberta-base, t5-base, beit3-base, llama2-7b, llama2-13b"},
        {"layers", 0, DZ_OPTION_INT, &layers, "N", "only the first N blocks"},
        {"tasks", 0, DZ_OPTION_INT, &opt.tasks, "N", "fine-tuned models beside the base (4)"},
        {"dtype", 0, DZ_OPTION_TEXT, &dtype, "TYPE", "f32, f16 or bf16 (bf16)"},
        {"tails", 0, DZ_OPTION_TEXT, &tails, "KIND",
         "t: heavy tails and a low-rank part; t4 (heaviest) to t8: the same in all blocks; gauss: neither, hardest to code (t)"},
        {"seed", 0, DZ_OPTION_U64, &opt.seed, "S", "of all random numbers (42)"},
        {"shard-size", 0, DZ_OPTION_SIZE, &opt.shard_bytes, "SIZE", "cut models into shards of about this size"},
        {"output", 'o', DZ_OPTION_TEXT, &opt.out_dir, "DIR", "the folder for base/, task-*/ and zoo.yaml"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace models of an earlier synth, and only those"},
        {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_SYNTH, argc, argv, options, NULL, 0, &helped, err) != DZ_OK || helped) return err->rc;
    if (choose_types(dtype, tails, &opt, err) != DZ_OK) return err->rc;
    if (!opt.out_dir) return dz_fail(err, DZ_EUSAGE, "synth: -o DIR is needed (deltazoo synth --help)");
    if (layers == 0) return dz_fail(err, DZ_EUSAGE, "synth: --layers 0: at least 1 (without --layers: all)");
    opt.layers = layers > 0 ? layers : 0;
    dz_synth_layout *layout = NULL;
    dz_progress progress;
    double begun = dz_now();
    int existed = access(opt.out_dir, F_OK) == 0;
    dz_rc rc = dz_sync_error(world, dz_synth_layout_new(&opt, &layout, err), err);
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? dz_synth_prepare(&opt, layout, err) : DZ_OK, err);
    int made = rc == DZ_OK || rc == DZ_EFAIL; /* a refusal (DZ_EUSAGE) made nothing */
    if (rc == DZ_OK) {
        dz_progress_begin(&progress, world, "synth", (double)layout->total_bytes, quiet);
        opt.on_written = count_bytes;
        opt.arg = &progress;
        dz_synth_fill(&opt, layout, world->rank, world->size, err);
        dz_progress_end(&progress);
        rc = dz_sync_error(world, err->rc, err);
    }
    if (rc == DZ_OK) rc = dz_sync_error(world, world->rank == 0 ? dz_synth_finish(&opt, layout, err) : DZ_OK, err);
    if (rc == DZ_OK && world->rank == 0) {
        char size[32];
        printf("%s: %s, base and %d task%s of %s each, in %.1f s\n", opt.out_dir, opt.model, opt.tasks, opt.tasks == 1 ? "" : "s",
               dz_format_size((double)layout->total_bytes / (opt.tasks + 1), size), dz_now() - begun);
    }
    if (rc != DZ_OK && made && world->rank == 0) dz_synth_undo(&opt, existed);
    dz_synth_layout_free(layout);
    return rc;
}

const dz_command DZ_CMD_SYNTH = {
    "synth", "--shape NAME [--layers N] --tasks N --dtype f32|f16|bf16 [--tails gauss|t|t4..t8] --seed S -o DIR",
    "Makes a zoo with the names and shapes of a real model and random weights.", run,
    "deltazoo synth --shape tiny --tasks 2 --dtype bf16 --seed 1 -o tiny\n"
    "mpirun -n 2 deltazoo synth --shape vit-b-32 --layers 1 --tasks 1 --dtype f16 --tails gauss --seed 7 -o vit"};
