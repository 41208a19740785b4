#include <math.h>
#include <stdio.h>
#include <string.h>

#include "archive_ops/compare.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "config/recipe.h"

static json_t *number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

static json_t *error_json(const dz_tensor_error *e) {
    json_t *o = json_pack("{s:I, s:b, s:o, s:o, s:o}", "parameters", (json_int_t)e->count, "identical", e->identical, "relative_error",
                          number(e->relative), "cosine", number(e->cosine), "max_abs_error", number(e->max_abs));
    if (e->name) json_object_set_new(o, "name", json_string(e->name));
    if (e->name) json_object_set_new(o, "policy", json_string(dz_policy_name((dz_policy)e->policy)));
    return o;
}

#define NUMBERS 40 /* columns beside the name */

static void print_table(const dz_compare_result *r, int wide) {
    size_t longest = 17, identical = 0;
    char text[256];
    for (size_t i = 0; i < r->ntensors; i++) {
        longest = strlen(r->tensors[i].name) > longest ? strlen(r->tensors[i].name) : longest;
        identical += r->tensors[i].identical != 0;
    }
    int width = dz_table_width(longest, NUMBERS, wide);
    printf("%-*s %-10s %9s %8s %9s\n", width, "tensor", "policy", "error", "cosine", "max error");
    for (size_t i = 0; i < r->ntensors; i++) {
        const dz_tensor_error *e = &r->tensors[i];
        printf("%-*s %-10s ", width, dz_table_name(e->name, width, text), dz_policy_name((dz_policy)e->policy));
        if (e->identical)
            printf("%9s\n", "identical");
        else
            printf("%9.4g %8.4f %9.3g\n", e->relative, e->cosine, e->max_abs);
    }
    printf("%-*s %-10s %9.4g %8.4f %9.3g\n\n", width, "all lossy tensors", "", r->lossy.relative, r->lossy.cosine, r->lossy.max_abs);
    if ((size_t)width < longest) printf("Names are shortened; --wide and --json show them in full.\n");
    printf("%zu of %zu tensors are identical.\n"
           "error: |restored - fine-tuned| / |fine-tuned - base|, Frobenius norms\n"
           "cosine: between restored delta and true delta\n",
           identical, r->ntensors);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *task = NULL, *base = NULL, *finetuned = NULL, *args[1];
    int json = 0, wide = 0, quiet = 0, helped = 0;
    dz_compare_result r = {0};
    const dz_option options[] = {{"task", 't', DZ_OPTION_TEXT, &task, "NAME", "the task"},
                                 {"base", 'b', DZ_OPTION_TEXT, &base, "PATH", "the base model"},
                                 {"finetuned", 0, DZ_OPTION_TEXT, &finetuned, "PATH", "the fine-tuned model that was compressed"},
                                 {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
                                 {"wide", 0, DZ_OPTION_FLAG, &wide, NULL, "full names, in more than 80 columns"},
                                 {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_COMPARE, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    if (!task || !base || !finetuned)
        return dz_fail(err, DZ_EUSAGE, "compare: --task NAME, --base PATH and --finetuned PATH are needed (deltazoo compare --help)");
    dz_rc rc = dz_compare(world, args[0], task, base, finetuned, quiet, &r, err);
    if (rc == DZ_OK && world->rank == 0 && json) {
        json_t *list = json_array();
        for (size_t i = 0; i < r.ntensors; i++) json_array_append_new(list, error_json(&r.tensors[i]));
        rc = dz_print_json(
            json_pack("{s:s, s:s, s:o, s:o}", "archive", args[0], "task", task, "lossy", error_json(&r.lossy), "tensors", list), NULL, err);
    } else if (rc == DZ_OK && world->rank == 0) {
        print_table(&r, wide);
    }
    dz_compare_result_free(&r);
    return dz_sync_error(world, rc, err);
}

const dz_command DZ_CMD_COMPARE = {"compare", "ARCHIVE --task NAME --base PATH --finetuned PATH [--json|--wide]",
                                   "Compares every restored tensor with the fine-tuned model.", run,
                                   "deltazoo compare zoo.h5 --task math --base base --finetuned math"};
