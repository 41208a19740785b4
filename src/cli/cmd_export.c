#include <stdio.h>
#include <string.h>

#include "archive_ops/export.h"
#include "archive_ops/lora.h"
#include "archive_ops/patch.h"
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

static const char *lacks_why(const dz_export_options *opt, const dz_export_result *r) {
    switch (opt->format) {
        case DZ_EXPORT_SPARSE: return "they are kept exactly, and a sparse vector has lossy tensors only";
        case DZ_EXPORT_LORA:
            return r->without_base ? "an adapter has linear layers only; of those that are kept exactly, --base PATH adds the differences"
                                   : "an adapter has linear layers only";
        default:
            return opt->base ? "the base has none of that name, or they are no floats"
                             : "they are kept exactly; --base PATH adds their differences";
    }
}

static void warn_beside_experts(const char *adapter, uint64_t n) {
    dz_message("warning",
               "%s: %llu layer%s of it (dense layers or shared experts) %s the last name of an expert's: peft with transformers 5 leaves "
               "out either the one or the other, and does not say so: load it with transformers 4, or load a restored model",
               adapter, (unsigned long long)n, n == 1 ? "" : "s", n == 1 ? "has" : "have");
}

static void print_made(const dz_export_options *opt, const dz_export_result *r) {
    char size[32], whole[32];
    dz_format_size((double)r->nbytes, size);
    if (opt->format == DZ_EXPORT_PATCH) {
        printf("%s: task %s, %.3g %% of the elements differ, in %llu tensors, %s\nof %s, %.2f s\n", opt->out, opt->task,
               r->elements ? 100 * (double)r->changed / (double)r->elements : 0, (unsigned long long)r->ntensors, size,
               dz_format_size((double)r->model_bytes, whole), r->secs);
        if (r->dense)
            dz_message("note", "%s: %llu tensor%s whole: positions and values would take as much", opt->out, (unsigned long long)r->dense,
                       r->dense == 1 ? " is" : "s are");
        return;
    }
    if (opt->format != DZ_EXPORT_LORA) {
        printf("%s: task %s, the deltas of %llu tensors, %s, %.2f s\n", opt->out, opt->task, (unsigned long long)r->ntensors, size,
               r->secs);
        return;
    }
    printf("%s: task %s, rank %u, %llu linear layers, %s, %.2f s\n", opt->out, opt->task, opt->rank, (unsigned long long)r->ntensors, size,
           r->secs);
    printf("energy kept: %.1f %% of these layers' deltas (least: %.1f %%)", r->energy_in > 0 ? 100 * r->energy_kept / r->energy_in : 100.0,
           100 * r->least);
    if (r->left_out)
        printf(",\n%.1f %% of all deltas%s", r->energy > 0 ? 100 * r->energy_kept / r->energy : 100.0,
               opt->base ? "" : " of lossy tensors");
    printf("\n");
}

/* Which format; the options that only one has. */
static dz_rc check_format(dz_export_options *opt, const char *format, int rank, dz_error *err) {
    static const char *const formats[] = {"dense", "sparse", "hdf5", "lora", "patch"};
    size_t i = 0;
    if (strcmp(format, "gguf-lora") == 0)
        return dz_fail(err, DZ_EUSAGE,
                       "export: --format gguf-lora: made from an adapter by the Python package: export --format lora -o DIR, then "
                       "'python3 -m deltazoo gguf-lora DIR --base PATH -o FILE.gguf'");
    while (i < sizeof formats / sizeof *formats && strcmp(format, formats[i]) != 0) i++;
    if (i == sizeof formats / sizeof *formats)
        return dz_fail(err, DZ_EUSAGE, "export: --format: '%s' is none of dense, sparse, hdf5, lora and patch", format);
    opt->format = (dz_export_format)i;
    if (opt->format == DZ_EXPORT_LORA && (rank < 1 || rank > DZ_LORA_MOST))
        return dz_fail(err, DZ_EUSAGE,
                       rank ? "export: --rank: %d is not between 1 and %d" : "export: --format lora needs --rank R, such as 16", rank,
                       DZ_LORA_MOST);
    if (opt->format != DZ_EXPORT_LORA && rank) return dz_fail(err, DZ_EUSAGE, "export: --rank is of --format lora only");
    if (opt->format == DZ_EXPORT_PATCH && opt->tensors)
        return dz_fail(err, DZ_EUSAGE, "export: --format patch is of the whole task: leave out --tensor");
    opt->rank = (unsigned)rank;
    return DZ_OK;
}

static dz_rc run_export(const dz_world *world, int argc, char **argv, dz_error *err) {
    dz_export_options opt = {0};
    dz_export_result r = {0};
    const char *format = "dense", *args[1];
    int helped = 0, rank = 0;
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_TEXT, &opt.task, "NAME", "the task whose delta is written"},
        {"output", 'o', DZ_OPTION_TEXT, &opt.out, "FILE", "a .safetensors file; for hdf5 an HDF5 file, for lora a directory"},
        {"format", 0, DZ_OPTION_TEXT, &format, "dense|sparse|hdf5|lora|patch",
         "F32 tensors; positions and values of lossy tensors; plain HDF5 arrays; an adapter for peft and vLLM (for "
         "llama.cpp: python3 -m deltazoo gguf-lora makes one of it); or the elements that differ, with their new values"},
        {"rank", 'r', DZ_OPTION_INT, &rank, "R", "lora: of the adapter"},
        {"base", 'b', DZ_OPTION_TEXT, &opt.base, "PATH", "add the differences of exact tensors"},
        {"tensor", 0, DZ_OPTION_TEXT, &opt.tensors, "GLOB", "only these tensors"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace an existing file"},
        {"quiet", 'q', DZ_OPTION_FLAG, &opt.quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_EXPORT, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    const dz_required needed[] = {{opt.task != NULL, "--task NAME"}, {opt.out != NULL, "-o FILE"}, {0, NULL}};
    if (dz_require(&DZ_CMD_EXPORT, needed, err) != DZ_OK) return err->rc;
    if (check_format(&opt, format, rank, err) != DZ_OK) return err->rc;
    opt.archive = args[0];
    dz_rc rc = opt.format == DZ_EXPORT_LORA    ? dz_export_lora(world, &opt, &r, err)
               : opt.format == DZ_EXPORT_PATCH ? dz_export_patch(world, &opt, &r, err)
                                               : dz_export(world, &opt, &r, err);
    if (rc == DZ_OK && world->rank == 0) {
        print_made(&opt, &r);
        if (r.left_out) note_lacks(opt.out, &r, lacks_why(&opt, &r));
        if (r.beside_experts) warn_beside_experts(opt.out, r.beside_experts);
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

const dz_command DZ_CMD_EXPORT = {
    "export", "ARCHIVE --task NAME -o FILE [--format dense|sparse|hdf5|lora|patch] [--rank R] [--base PATH] [--tensor GLOB]",
    "Writes a task's delta for other tools: a task vector, arrays that h5dump shows, a LoRA adapter, or a patch.", run_export,
    "deltazoo export zoo.h5 --task math -o math-vector.safetensors --base base\n"
    "deltazoo export zoo.h5 --task math -o math-sparse.safetensors --format sparse\n"
    "mpirun -n 2 deltazoo export zoo.h5 --task math -o math-arrays.h5 --format hdf5 --tensor '*layers.0.*'\n"
    "deltazoo export zoo.h5 --task math -o math-adapter --format lora --rank 16 --base base\n"
    "deltazoo export zoo.h5 --task math -o math-patch.safetensors --format patch --base base"};
const dz_command DZ_CMD_IMPORT = {"import", "VECTOR --base PATH -o DIR", "Adds a dense task vector to a base: a model that a zoo can hold.",
                                  run_import, "deltazoo import math-vector.safetensors --base base -o math-again"};
