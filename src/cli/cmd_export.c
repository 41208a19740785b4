#include <stdio.h>
#include <string.h>

#include "archive_ops/export.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"

/* "v.safetensors lacks 12 tensors of its task: a, b, c and 9 more: WHY" */
static void note_lacks(const char *vector, const dz_export_result *r, const char *why) {
    const char *line = (const char *)r->lacks.data, *all_end = line ? line + r->lacks.len : NULL;
    int n = 0;
    dz_error err = {0};
    dz_buf names = {0};
    for (; line && line < all_end && n < 3; n++) {
        int len = (int)strcspn(line, "\n");
        dz_buf_line(&names, &err, "%s%.*s", n ? ", " : "", len, line);
        line += len + 1;
    }
    if ((uint64_t)n < r->left_out) dz_buf_line(&names, &err, " and %llu more", (unsigned long long)r->left_out - (unsigned long long)n);
    dz_message("note", "%s lacks %llu tensor%s of its task: %.*s: %s", vector, (unsigned long long)r->left_out, r->left_out == 1 ? "" : "s",
               (int)names.len, names.data ? (const char *)names.data : "", why);
    dz_buf_free(&names);
}

static dz_rc run_export(const dz_world *world, int argc, char **argv, dz_error *err) {
    static const char *const formats[] = {"dense", "sparse", "hdf5"};
    dz_export_options opt = {0};
    dz_export_result r = {0};
    const char *format = "dense", *args[1];
    int helped = 0, known = 0;
    const dz_option options[] = {{"task", 't', DZ_OPTION_TEXT, &opt.task, "NAME", "the task whose delta is written"},
                                 {"output", 'o', DZ_OPTION_TEXT, &opt.out, "FILE", "a .safetensors file, or for hdf5 an HDF5 file"},
                                 {"format", 0, DZ_OPTION_TEXT, &format, "dense|sparse|hdf5",
                                  "F32 tensors; positions and values of lossy tensors; or plain HDF5 arrays"},
                                 {"base", 'b', DZ_OPTION_TEXT, &opt.base, "PATH", "add the differences of exact tensors"},
                                 {"tensor", 0, DZ_OPTION_TEXT, &opt.tensors, "GLOB", "only these tensors"},
                                 {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing file"},
                                 {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_EXPORT, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    const dz_required needed[] = {{opt.task != NULL, "--task NAME"}, {opt.out != NULL, "-o FILE"}, {0, NULL}};
    if (dz_require(&DZ_CMD_EXPORT, needed, err) != DZ_OK) return err->rc;
    for (int i = 0; i < 3; i++) {
        if (strcmp(format, formats[i]) != 0) continue;
        opt.format = (dz_export_format)i;
        known = 1;
    }
    if (!known) return dz_fail(err, DZ_EUSAGE, "export: --format: '%s' is none of dense, sparse and hdf5", format);
    opt.archive = args[0];
    dz_rc rc = dz_export(world, &opt, &r, err);
    if (rc == DZ_OK && world->rank == 0) {
        char size[32];
        printf("%s: task %s, the deltas of %llu tensors, %s, %.2f s\n", opt.out, opt.task, (unsigned long long)r.ntensors,
               dz_format_size((double)r.nbytes, size), r.secs);
        if (r.left_out)
            note_lacks(opt.out, &r,
                       opt.format == DZ_EXPORT_SPARSE ? "they are kept exactly, and a sparse vector has lossy tensors only"
                       : opt.base                     ? "the base has none of that name, or they are no floats"
                                                      : "they are kept exactly; --base PATH adds their differences");
    }
    dz_buf_free(&r.lacks);
    return rc;
}

static dz_rc run_import(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_import_options opt = {0};
    dz_export_result r = {0};
    const char *args[1];
    int helped = 0;
    const dz_option options[] = {{"base", 'b', DZ_OPTION_TEXT, &opt.base, "PATH", "the model the vector is added to"},
                                 {"output", 'o', DZ_OPTION_TEXT, &opt.out, "DIR", "gets the model's files, as the base has them"},
                                 {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_IMPORT, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    const dz_required needed[] = {{opt.base != NULL, "--base PATH"}, {opt.out != NULL, "-o DIR"}, {0, NULL}};
    if (dz_require(&DZ_CMD_IMPORT, needed, err) != DZ_OK) return err->rc;
    opt.vector = args[0];
    dz_rc rc = dz_import(world, &opt, &r, err);
    if (rc == DZ_OK && world->rank == 0) {
        char size[32];
        printf("%s: %llu tensors, %s, %.2f s\n", opt.out, (unsigned long long)r.ntensors, dz_format_size((double)r.nbytes, size), r.secs);
        dz_message("note", "%s: config, tokenizer and other files are the base's", opt.out);
        if (r.left_out) note_lacks(opt.vector, &r, "they are the base's in this model; 'deltazoo restore' makes the whole of it");
    }
    dz_buf_free(&r.lacks);
    return rc;
}

const dz_command DZ_CMD_EXPORT = {"export", "ARCHIVE --task NAME -o FILE [--format dense|sparse|hdf5] [--base PATH] [--tensor GLOB]",
                                  "Writes a task's delta for other tools: a task vector, or arrays that h5dump shows.", run_export,
                                  "deltazoo export zoo.h5 --task math -o math-vector.safetensors --base base\n"
                                  "deltazoo export zoo.h5 --task math -o math-sparse.safetensors --format sparse\n"
                                  "mpirun -n 2 deltazoo export zoo.h5 --task math -o math-arrays.h5 --format hdf5 --tensor '*layers.0.*'"};
const dz_command DZ_CMD_IMPORT = {"import", "VECTOR --base PATH -o DIR", "Adds a dense task vector to a base: a model that a zoo can hold.",
                                  run_import, "deltazoo import math-vector.safetensors --base base -o math-again"};
