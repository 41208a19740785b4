#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "cli/table.h"
#include "config/zoo.h"
#include "numeric/gauss.h"
#include "numeric/noise.h"
#include "plan/plan.h"

typedef struct totals {
    size_t lossy, lossless, dropped;
    double lossy_bytes, lossless_bytes, dropped_bytes, lossy_parameters, predicted;
} totals;

/* Coded bits of a kept value for a normal delta: entropy of a unit normal on a grid of 2^bits levels over about +-5.2 sigma, plus 5 % for
 * positions, tables and checksums. Real deltas have heavier tails and code smaller. */
static double bits_per_kept(int bits) {
    double step = 10.4 / ((1 << bits) - 1);
    double entropy = 2.047 - log2(step);
    return 1.05 * (entropy < 0.3 ? 0.3 : entropy);
}

/* Share of a lossy tensor's elements, or coefficients, to be kept. */
static double share_of(const dz_plan *plan, const dz_recipe *r, const dz_tensor_pair *pair) {
    if (!isnan(pair->sparsity)) return 1 - pair->sparsity;
    if (r->method == DZ_METHOD_BITDELTA) return 1;
    if (r->method != DZ_METHOD_AUTO) return 1 - r->sparsity;
    double share = r->target_ratio > 0 ? dz_gauss_share_of_bits(16 / r->target_ratio) : 1 - r->sparsity;
    return dz_plan_density(pair, share, dz_plan_spread(plan, pair->task));
}

/* What the recipe is expected to do to a tensor. A target ratio's density is known only for method auto, and there without what tables
 * take. */
static dz_quality quality_of(const dz_plan *plan, const dz_recipe *r, const dz_tensor_pair *pair) {
    const dz_tensor *t = dz_pair_tensor(plan, pair);
    double columns = t->ndim >= 2 && t->shape[0] ? (double)(t->count / t->shape[0]) : 1, share = share_of(plan, r, pair);
    if (r->method == DZ_METHOD_AUTO)
        return dz_quality_signs(share, isnan(r->gain) ? dz_quality_gain(dz_gauss_noise(share), columns) : r->gain, columns);
    if (r->method == DZ_METHOD_BITDELTA) return dz_quality_signs(1, DZ_QUALITY_MEAN_GAIN, columns);
    return dz_quality_sampled(share, r->method == DZ_METHOD_MAGNITUDE ? 1 : 1 / share, columns);
}

static int quality_is_known(const dz_recipe *r, const dz_tensor_pair *pair) {
    return pair->policy == DZ_POLICY_ULTRADELTA && (r->target_ratio <= 0 || r->method == DZ_METHOD_AUTO);
}

static double predicted_bytes(const dz_plan *plan, const dz_recipe *r, const dz_tensor_pair *pair, double nbytes) {
    double n = (double)pair->tiles.common, share = share_of(plan, r, pair);
    if (r->target_ratio > 0) return nbytes / r->target_ratio;
    if (r->method == DZ_METHOD_AUTO) return n * dz_gauss_bits(share) / 8 + 60;
    return n * share * bits_per_kept(pair->bits) / 8 + 100;
}

/* Warnings about losses of accuracy. */
static void warn(const dz_zoo *zoo, const dz_plan *plan, dz_buf *lines, dz_error *err) {
    for (size_t t = 0; t < zoo->ntasks; t++) {
        size_t lossy = 0, noisy = 0;
        double most = 0;
        const char *worst = "";
        for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1]; i++) {
            if (!quality_is_known(zoo->recipe, &plan->pairs[i])) continue;
            double noise = quality_of(plan, zoo->recipe, &plan->pairs[i]).row;
            lossy++;
            noisy += noise > DZ_QUALITY_LIMIT;
            if (noise <= most) continue;
            most = noise;
            worst = dz_pair_tensor(plan, &plan->pairs[i])->name;
        }
        if (noisy)
            dz_buf_line(
                lines, err,
                "task '%s': in %zu of %zu lossy tensors the noise will be more than %g of the row length (%.2g in '%s'): accuracy will "
                "suffer\n",
                zoo->names[t], noisy, lossy, DZ_QUALITY_LIMIT, most, worst);
    }
}

static totals totals_of(const dz_plan *plan, const dz_recipe *recipe, size_t task) {
    totals sum = {0};
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        double nbytes = (double)dz_pair_tensor(plan, pair)->nbytes, n = (double)pair->tiles.common;
        if (pair->policy == DZ_POLICY_ULTRADELTA) {
            sum.lossy++;
            sum.lossy_bytes += nbytes;
            sum.lossy_parameters += n;
            sum.predicted += predicted_bytes(plan, recipe, pair, nbytes);
        } else if (pair->policy == DZ_POLICY_DROP) {
            sum.dropped++;
            sum.dropped_bytes += nbytes;
        } else {
            sum.lossless++;
            sum.lossless_bytes += nbytes;
        }
    }
    return sum;
}

static json_t *rank_json(const dz_plan *plan) {
    double mean = 0, most = 0;
    for (int r = 0; r < plan->nranks; r++) mean += (double)plan->rank_cost[r] / plan->nranks;
    for (int r = 0; r < plan->nranks; r++) most = (double)plan->rank_cost[r] > most ? (double)plan->rank_cost[r] : most;
    json_t *list = json_array();
    for (int r = 0; r < plan->nranks; r++) {
        double bytes = 0;
        int64_t base = -1, tile = -1; /* what the rank has read last of the base */
        for (size_t i = plan->first_work[r]; i < plan->first_work[r + 1]; i++) {
            const dz_work_item *unit = &plan->units[plan->work[i]];
            if (unit->base >= 0 && (unit->base != base || unit->tile != tile)) {
                base = unit->base;
                tile = unit->tile;
                const dz_tensor *b = &plan->base->tensors[unit->base];
                dz_pair_tiles grid = dz_pair_tiles_of(b->count, b->count, b->count);
                bytes += (double)(dz_tile_count(&grid, unit->tile) * dz_dtype_size(b->dtype));
            }
            if (unit->pair == DZ_NO_PAIR) continue;
            const dz_tensor_pair *pair = &plan->pairs[unit->pair];
            bytes += (double)(dz_tile_count(&pair->tiles, unit->tile) * dz_dtype_size(dz_pair_tensor(plan, pair)->dtype));
        }
        json_array_append_new(list, json_pack("{s:I, s:f, s:f}", "tiles", (json_int_t)(plan->first_work[r + 1] - plan->first_work[r]),
                                              "bytes", bytes, "cost", mean > 0 ? (double)plan->rank_cost[r] / mean : 0));
    }
    return json_pack("{s:i, s:I, s:f, s:o}", "ranks", plan->nranks, "tiles", (json_int_t)plan->nunits, "imbalance",
                     mean > 0 ? most / mean : 1, "per_rank", list);
}

static dz_rc tell_json(const dz_zoo *zoo, const dz_plan *plan, const dz_buf *warnings, dz_error *err) {
    json_t *tasks = json_array();
    for (size_t t = 0; t < zoo->ntasks; t++) {
        totals s = totals_of(plan, zoo->recipe, t);
        json_t *tensors = json_array();
        for (size_t i = plan->first_pair[t]; i < plan->first_pair[t + 1]; i++) {
            const dz_tensor_pair *pair = &plan->pairs[i];
            const dz_tensor *tensor = dz_pair_tensor(plan, pair);
            const char *base = pair->base >= 0 ? plan->base->tensors[pair->base].name : NULL;
            const char *tied = pair->policy == DZ_POLICY_TIED ? plan->tasks[t]->tensors[pair->tied].name : NULL;
            json_t *shape = json_array();
            for (uint32_t d = 0; d < tensor->ndim; d++) json_array_append_new(shape, json_integer((json_int_t)tensor->shape[d]));
            json_t *o = json_pack("{s:s, s:o, s:s, s:s, s:i, s:s?, s:s, s:s?}", "name", tensor->name, "shape", shape, "dtype",
                                  tensor->dtype_name, "policy", dz_policy_name(pair->policy), "tiles", (int)pair->tiles.ntiles, "base",
                                  base, "match", dz_match_name(pair->match), "tied", tied);
            if (quality_is_known(zoo->recipe, pair)) dz_json_quality(o, quality_of(plan, zoo->recipe, pair));
            json_array_append_new(tensors, o);
        }
        json_array_append_new(tasks, json_pack("{s:s, s:I, s:I, s:I, s:I, s:f, s:o}", "name", zoo->names[t], "lossy_bytes",
                                               (json_int_t)s.lossy_bytes, "lossless_bytes", (json_int_t)s.lossless_bytes, "dropped_bytes",
                                               (json_int_t)s.dropped_bytes, "lossy_parameters", (json_int_t)s.lossy_parameters,
                                               "predicted_lossy_stored_bytes", s.predicted, "tensors", tensors));
    }
    char *text = dz_recipe_text(zoo->recipe, err);
    json_t *root = json_pack("{s:s, s:s?, s:o, s:o, s:o, s:o}", "recipe", zoo->recipe->name, "recipe_text", text, "tasks", tasks, "work",
                             rank_json(plan), "notes", dz_json_lines(&plan->notes), "warnings", dz_json_lines(warnings));
    free(text);
    return dz_print_json(root, NULL, err);
}

static void tell(const dz_zoo *zoo, const dz_plan *plan) {
    char a[32], b[32], c[32], name[256];
    double mean = 0, most = 0;
    printf("recipe %s: sparsity %g, %d bits\n\n%-18s %16s %16s %7s %19s\n", zoo->recipe->name, zoo->recipe->sparsity, zoo->recipe->bits,
           "task", "lossy tensors", "exact tensors", "dropped", "lossy stored, about");
    for (size_t t = 0; t < zoo->ntasks; t++) {
        totals s = totals_of(plan, zoo->recipe, t);
        printf("%-18s %6zu %9s %6zu %9s %7zu %9s %8.0fx\n", dz_table_name(zoo->names[t], 18, name), s.lossy,
               dz_format_size(s.lossy_bytes, a), s.lossless, dz_format_size(s.lossless_bytes, b), s.dropped, dz_format_size(s.predicted, c),
               s.predicted > 0 ? s.lossy_bytes / s.predicted : 0);
    }
    for (int r = 0; r < plan->nranks; r++) {
        mean += (double)plan->rank_cost[r] / plan->nranks;
        most = (double)plan->rank_cost[r] > most ? (double)plan->rank_cost[r] : most;
    }
    printf("\n%d rank%s, %zu tiles, imbalance (slowest rank over mean) %.3f\n", plan->nranks, plan->nranks == 1 ? "" : "s", plan->nunits,
           mean > 0 ? most / mean : 1);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[1];
    int json = 0, ranks = world->size, helped = 0;
    dz_option_list sets = {0};
    dz_recipe_request request = {0};
    dz_zoo zoo = {0};
    dz_plan *plan = NULL;
    dz_buf warnings = {0};
    const dz_option options[] = {{"recipe", 0, DZ_OPTION_TEXT, &request.recipe, "FILE|NAME", "as for compress"},
                                 {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "as for compress"},
                                 {"ranks", 0, DZ_OPTION_INT, &ranks, "N", "plan for N ranks (those that run)"},
                                 {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_PLAN, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (ranks < 1) {
        rc = dz_fail(err, DZ_EUSAGE, "plan: --ranks %d: at least 1", ranks);
        goto out;
    }
    request.sets = sets.values;
    request.nsets = sets.n;
    if ((rc = dz_zoo_open(world, args[0], &request, &zoo, err)) != DZ_OK) goto out;
    if (world->rank == 0) rc = dz_plan_make(zoo.base, zoo.tasks, zoo.names, zoo.ntasks, zoo.recipe, ranks, &plan, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if (world->rank == 0) {
        dz_print_notes(&plan->notes);
        warn(&zoo, plan, &warnings, err);
        if (json)
            tell_json(&zoo, plan, &warnings, err);
        else
            tell(&zoo, plan);
        if (!json) dz_print_notes(&warnings);
        rc = err->rc;
    }
    rc = dz_sync_error(world, rc, err);
out:
    dz_buf_free(&warnings);
    dz_plan_free(plan);
    dz_zoo_close(&zoo);
    dz_option_list_free(&sets);
    return rc;
}

const dz_command DZ_CMD_PLAN = {"plan", "ZOO.yaml [--recipe FILE|NAME] [--set KEY=VALUE]... [--ranks N] [--json]",
                                "Tells what compress would do. No data is read beyond headers.", run,
                                "deltazoo plan zoo.yaml\n"
                                "deltazoo plan zoo.yaml --set sparsity=0.99 --ranks 1024 --json"};
