#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "archive_ops/compare.h"
#include "cli/cli.h"
#include "cli/table.h"
#include "config/recipe.h"
#include "numeric/noise.h"

/* The share of the true change that is noise (1 - cosine^2) or lost ((1 - strength)^2, strength: of the true change in the restored one, up
 * to 1), whichever is larger: 0 is exact, and 1 is what a tensor has of which nothing came back. Ranks as accuracy does, whatever the
 * scale. */
static double noise_share(const dz_tensor_error *e) {
    if (e->identical || e->error2 <= 0) return 0;
    if (!(e->cosine > 0) || !(e->delta2 > 0)) return 1;
    double strength = e->dot / e->delta2, noise = 1 - e->cosine * e->cosine, lost = strength < 1 ? (1 - strength) * (1 - strength) : 0;
    return noise > lost ? noise : lost;
}

/* By the measured noise and gain, as `info` has it by the expected ones. */
static void add_measured(dz_energies *sum, const dz_tensor_error *e) {
    dz_noise noise = {0}; /* nothing came back */
    if (e->count == 0 || e->identical) return;
    if (e->cosine > 0 && e->delta2 > 0) noise = (dz_noise){.nsr = 1 / (e->cosine * e->cosine) - 1, .gain = e->dot / e->delta2};
    dz_noise_add(sum, noise, e->delta2 > 0 ? e->delta2 : 1, e->base2);
}

static dz_quality quality_of(const dz_compare_result *r) {
    dz_noise_sum sum = {0};
    add_measured(&sum.body, &r->body);
    add_measured(&sum.vocabulary, &r->vocabulary);
    return dz_quality_of(&sum);
}

static const char *verdict_text(dz_verdict verdict) {
    static const char *const texts[DZ_VERDICTS] = {[DZ_VERDICT_EXACT] = "quality exact: every lossy tensor came back as it was",
                                                   [DZ_VERDICT_HIGH] = "quality high",
                                                   [DZ_VERDICT_BALANCED] = "quality balanced",
                                                   [DZ_VERDICT_SMALL] = "quality small: check the task's accuracy",
                                                   [DZ_VERDICT_POOR] =
                                                       "quality poor: compress again with --quality small, balanced or high"};
    return texts[verdict];
}

static json_t *error_json(const dz_tensor_error *e) {
    json_t *o = json_pack("{s:I, s:b, s:o, s:o, s:o}", "parameters", (json_int_t)e->count, "identical", e->identical, "relative_error",
                          dz_json_number(e->relative), "cosine", dz_json_number(e->cosine), "max_abs_error", dz_json_number(e->max_abs));
    json_object_set_new(o, "noise_share", dz_json_number(noise_share(e)));
    if (e->name) json_object_set_new(o, "name", json_string(e->name));
    if (e->name) json_object_set_new(o, "policy", json_string(dz_policy_name((dz_policy)e->policy)));
    return o;
}

#define NUMBERS 52 /* columns beside the name */

static void print_table(const dz_compare_result *r, int wide) {
    size_t longest = 17, identical = 0;
    char text[256];
    for (size_t i = 0; i < r->ntensors; i++) {
        longest = strlen(r->tensors[i].name) > longest ? strlen(r->tensors[i].name) : longest;
        identical += r->tensors[i].identical != 0;
    }
    int width = dz_table_width(longest, NUMBERS, wide);
    printf("%-*s %-10s %8s %11s %9s %9s\n", width, "tensor", "policy", "cosine", "noise share", "error", "max error");
    for (size_t i = 0; i < r->ntensors; i++) {
        const dz_tensor_error *e = &r->tensors[i];
        printf("%-*s %-10s ", width, dz_table_name(e->name, width, text), dz_policy_name((dz_policy)e->policy));
        if (e->identical)
            printf("%8s\n", "identical");
        else
            printf("%8.4f %11.4g %9.4g %9.3g\n", e->cosine, noise_share(e), e->relative, e->max_abs);
    }
    printf("%-*s %-10s %8.4f %11.4g %9.4g %9.3g\n\n", width, "all lossy tensors", "", r->lossy.cosine, noise_share(&r->lossy),
           r->lossy.relative, r->lossy.max_abs);
    if ((size_t)width < longest) printf("Names are shortened; --wide and --json show them in full.\n");
    printf("%zu of %zu tensors are identical.\n"
           "cosine: between restored delta and true delta\n"
           "noise share: of the true delta, what is noise or lost (0: exact, 1: all of it)\n"
           "error: |restored - fine-tuned| / |fine-tuned - base|, Frobenius norms\n"
           "noise/delta, noise/base: energy of the noise over the delta's, over the base's\n",
           identical, r->ntensors);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *task = NULL, *base = NULL, *finetuned = NULL, *args[1];
    int json = 0, wide = 0, quiet = 0, helped = 0;
    const char *limit = NULL;
    double most = INFINITY;
    dz_compare_result r = {0};
    const dz_option options[] = {
        {"task", 't', DZ_OPTION_TEXT, &task, "NAME", "the task"},
        {"base", 'b', DZ_OPTION_TEXT, &base, "PATH", "the base model; not needed if the archive holds it"},
        {"finetuned", 0, DZ_OPTION_TEXT, &finetuned, "PATH", "the fine-tuned model that was compressed"},
        {"max-noise", 0, DZ_OPTION_TEXT, &limit, "X", "exit code 1 when the noise share of all lossy tensors is above X"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
        {"wide", 0, DZ_OPTION_FLAG, &wide, NULL, "full names, in more than 80 columns"},
        {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_COMPARE, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    const dz_required needed[] = {{task != NULL, "--task NAME"}, {finetuned != NULL, "--finetuned PATH"}, {0, NULL}};
    if (dz_require(&DZ_CMD_COMPARE, needed, err) != DZ_OK) return err->rc;
    char *end = NULL;
    if (limit) most = strtod(limit, &end);
    if (limit && (end == limit || *end || !(most >= 0)))
        return dz_fail(err, DZ_EUSAGE, "compare: --max-noise: '%s' is not a number of at least 0", limit);
    dz_rc rc = dz_compare(world, args[0], task, base, finetuned, quiet, &r, err);
    if (rc == DZ_OK && world->rank == 0 && json) {
        json_t *list = json_array();
        for (size_t i = 0; i < r.ntensors; i++) json_array_append_new(list, error_json(&r.tensors[i]));
        dz_quality q = quality_of(&r);
        json_t *lossy = error_json(&r.lossy);
        json_object_set_new(lossy, "noise_to_delta", dz_json_number(q.noise_to_delta));
        json_object_set_new(lossy, "noise_to_base", dz_json_number(q.noise_to_base));
        json_object_set_new(lossy, "verdict", json_string(dz_verdict_name(q.verdict)));
        rc = dz_print_json(json_pack("{s:s, s:s, s:o, s:o}", "archive", args[0], "task", task, "lossy", lossy, "tensors", list), NULL, err);
    } else if (rc == DZ_OK && world->rank == 0) {
        print_table(&r, wide);
        char name[256];
        dz_quality q = quality_of(&r);
        printf("%s:\n%s\n(cosine %.4f, noise share %.4g, noise/delta %.3g, noise/base %.2g %%)\n", dz_table_name(task, 70, name),
               verdict_text(q.verdict), q.cosine, noise_share(&r.lossy), q.noise_to_delta,
               isfinite(q.noise_to_base) ? 100 * q.noise_to_base : 0);
    }
    if (rc == DZ_OK && noise_share(&r.lossy) > most)
        rc =
            dz_fail(err, DZ_EFAIL, "%s: task '%s': noise share %.4g is above %g (--max-noise)", args[0], task, noise_share(&r.lossy), most);
    dz_compare_result_free(&r);
    return dz_sync_error(world, rc, err);
}

const dz_command DZ_CMD_COMPARE = {"compare", "ARCHIVE --task NAME --base PATH --finetuned PATH [--max-noise X] [--json|--wide]",
                                   "Compares every restored tensor with the fine-tuned model.", run,
                                   "deltazoo compare zoo.h5 --task math --base base --finetuned math"};
