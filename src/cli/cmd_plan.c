#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/report.h"
#include "cli/table.h"
#include "compress/forecast.h"
#include "compress/fused.h"
#include "config/zoo.h"
#include "plan/zoo_plan.h"

typedef struct totals {
    size_t lossy, lossless, dropped;
    double lossy_bytes, lossless_bytes, dropped_bytes, lossy_parameters;
} totals;

static totals totals_of(const dz_plan *plan, size_t task) {
    totals sum = {0};
    for (size_t i = plan->first_pair[task]; i < plan->first_pair[task + 1]; i++) {
        const dz_tensor_pair *pair = &plan->pairs[i];
        double nbytes = (double)dz_pair_tensor(plan, pair)->nbytes, n = (double)pair->tiles.common;
        if (pair->policy == DZ_POLICY_ULTRADELTA) {
            sum.lossy++;
            sum.lossy_bytes += nbytes;
            sum.lossy_parameters += n;
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

/* A line with the next step for each task that will come back poor. */
static void warn(const dz_zoo *zoo, const dz_forecast *forecast, dz_buf *lines, dz_error *err) {
    for (size_t t = 0; forecast->tasks && t < zoo->ntasks; t++) {
        dz_quality q = forecast->tasks[t].quality;
        if (q.verdict != DZ_VERDICT_POOR) continue;
        dz_buf_line(lines, err, "task '%s': quality will be poor: ", zoo->names[t]);
        if (q.gain < DZ_LEAST_GAIN) dz_buf_line(lines, err, "%.2g %% of the change restored, ", 100 * q.gain);
        dz_buf_line(lines, err,
                    "noise %.3g times the energy of the delta and %.2g %% of the base's; "
                    "--quality small, balanced or high keeps more\n",
                    q.noise_to_delta, 100 * q.noise_to_base);
    }
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

/* How a lossy tensor is matrices, and what they do in the model. */
static void add_role(json_t *o, const dz_plan *plan, const dz_tensor_pair *pair) {
    const dz_matrix_view v = dz_plan_view(plan, pair);
    double depth = dz_plan_depth(plan, pair);
    json_object_set_new(o, "matrices", json_pack("[I, I, I]", (json_int_t)v.count, (json_int_t)v.rows, (json_int_t)v.cols));
    json_object_set_new(o, "inputs_first", json_boolean(v.in_first));
    json_object_set_new(o, "kind", json_string(dz_kind_name(dz_plan_kind(plan, pair))));
    json_object_set_new(o, "depth", isnan(depth) ? json_null() : json_real(depth));
}

/* What is expected of a tensor. */
static void add_forecast(json_t *o, const dz_tensor_pair *pair, const dz_forecast_tensor *f) {
    json_object_set_new(o, "predicted_stored_bytes", json_real(f->bytes));
    if (pair->lossy < 0) return;
    dz_noise_sum noise = {0};
    if (!f->exact)
        dz_noise_add(pair->vocabulary ? &noise.vocabulary : &noise.body, f->coding.noise, f->stats.delta_energy, f->stats.base_energy);
    dz_json_quality(o, dz_quality_of(&noise));
}

static dz_rc print_json(const dz_zoo *zoo, const dz_plan *plan, const dz_forecast *forecast, const dz_buf *warnings, dz_error *err) {
    json_t *tasks = json_array();
    for (size_t t = 0; t < zoo->ntasks; t++) {
        totals s = totals_of(plan, t);
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
            if (pair->base >= 0) json_object_set_new(o, "place", json_string(dz_place_name(plan->roles[pair->base].place)));
            if (pair->policy == DZ_POLICY_ULTRADELTA) add_role(o, plan, pair);
            if (forecast->tensors) add_forecast(o, pair, &forecast->tensors[i]);
            json_array_append_new(tensors, o);
        }
        json_t *task = json_pack("{s:s, s:I, s:I, s:I, s:I}", "name", zoo->names[t], "lossy_bytes", (json_int_t)s.lossy_bytes,
                                 "lossless_bytes", (json_int_t)s.lossless_bytes, "dropped_bytes", (json_int_t)s.dropped_bytes,
                                 "lossy_parameters", (json_int_t)s.lossy_parameters);
        if (forecast->tasks) {
            const dz_forecast_task *f = &forecast->tasks[t];
            json_object_set_new(task, "predicted_lossy_stored_bytes", json_real(f->lossy_stored));
            json_object_set_new(task, "predicted_stored_bytes", json_real(f->stored));
            json_object_set_new(task, "turned_exact", json_integer((json_int_t)f->turned_exact));
            dz_json_quality(task, f->quality);
        }
        json_object_set_new(task, "tensors", tensors);
        json_array_append_new(tasks, task);
    }
    char *text = dz_recipe_text(zoo->recipe, err);
    json_t *root = json_pack("{s:s, s:s?, s:o, s:o, s:o, s:o}", "recipe", zoo->recipe->name, "recipe_text", text, "tasks", tasks, "work",
                             rank_json(plan), "notes", dz_json_lines(&plan->notes), "warnings", dz_json_lines(warnings));
    free(text);
    return dz_print_json(root, NULL, err);
}

/* "method auto, quality balanced", "method ultradelta, sparsity 0.97, 4 bits": what decides about the bytes. */
static void print_setting(const dz_zoo *zoo) {
    char text[DZ_SETTING_TEXT], name[256];
    printf("recipe %s: %s\n", zoo->recipe->name, dz_recipe_setting(zoo->recipe, text));
    for (size_t t = 0; t < zoo->ntasks; t++) {
        if (zoo->own[t] && zoo->tasks[t] != zoo->stored)
            printf("task %s: %s\n", dz_table_name(zoo->names[t], 30, name), dz_recipe_setting(zoo->own[t], text));
    }
    putchar('\n');
}

static void print_forecast(const dz_zoo *zoo, const dz_plan *plan, const dz_forecast *forecast) {
    char a[32], b[32];
    double source = 0, stored = 0, base = 0;
    for (size_t i = 0; i < plan->base->ntensors; i++) base += (double)plan->base->tensors[i].nbytes;
    dz_print_quality_head("about");
    for (size_t t = 0; t < zoo->ntasks; t++) {
        const dz_forecast_task *f = &forecast->tasks[t];
        int is_base = zoo->tasks[t] == zoo->stored;
        dz_print_quality_row(is_base ? DZ_STORED_ROW : zoo->names[t], f->source, f->stored,
                             f->lossy_stored > 0 ? f->lossy_source / f->lossy_stored : 0, f->quality);
        source += is_base ? 0 : f->source;
        stored += f->stored;
    }
    printf("\nall: %s as about %s, %.1fx\n", dz_format_size(source, a), dz_format_size(stored, b), stored > 0 ? source / stored : 0);
    if (zoo->stored)
        printf("with the base, which will be in it (%s): %.2fx\n", dz_format_size(base, a), stored > 0 ? (source + base) / stored : 0);
    else if (plan->base->ntensors)
        printf("with the base, which must be kept (%s): %.2fx\n", dz_format_size(base, a), (source + base) / (stored + base));
    else
        printf("no base: each task is coded by itself\n");
}

static void print_tensors(const dz_zoo *zoo, const dz_plan *plan) {
    char a[32], b[32], name[256];
    printf("%-24s %6s %11s %8s %11s %8s\n", "task", "lossy", "bytes", "exact", "bytes", "dropped");
    for (size_t t = 0; t < zoo->ntasks; t++) {
        totals s = totals_of(plan, t);
        printf("%-24s %6zu %11s %8zu %11s %8zu\n", dz_table_name(zoo->names[t], 24, name), s.lossy, dz_format_size(s.lossy_bytes, a),
               s.lossless, dz_format_size(s.lossless_bytes, b), s.dropped);
    }
}

static void print_work(const dz_plan *plan) {
    double mean = 0, most = 0;
    for (int r = 0; r < plan->nranks; r++) {
        mean += (double)plan->rank_cost[r] / plan->nranks;
        most = (double)plan->rank_cost[r] > most ? (double)plan->rank_cost[r] : most;
    }
    printf("\n%d rank%s, %zu tiles, imbalance (slowest rank over mean) %.3f\n", plan->nranks, plan->nranks == 1 ? "" : "s", plan->nunits,
           mean > 0 ? most / mean : 1);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[1];
    int json = 0, ranks = world->size, anchor_every = DZ_ANCHOR_EVERY, headers = 0, helped = 0, with_base = 0, skip_unmatched = 0,
        allow_lossy = 0;
    dz_forecast forecast = {0};
    dz_generations generations = {.foreseen = 1};
    dz_option_list sets = {0};
    dz_recipe_request request = {0};
    dz_zoo zoo = {0};
    dz_plan *plan = NULL;
    dz_buf warnings = {0};
    const dz_option options[] = {{"recipe", 0, DZ_OPTION_TEXT, &request.recipe, "FILE|NAME", "as for compress"},
                                 {"set", 0, DZ_OPTION_LIST, &sets, "KEY=VALUE", "as for compress"},
                                 DZ_METHOD_OPTIONS(sets),
                                 {"with-base", 0, DZ_OPTION_FLAG, &with_base, NULL, "as for compress"},
                                 {"anchor-every", 0, DZ_OPTION_INT, &anchor_every, "N", "as for compress"},
                                 {"headers", 0, DZ_OPTION_FLAG, &headers, NULL, "read headers only: no sizes, no quality"},
                                 {"ranks", 0, DZ_OPTION_INT, &ranks, "N", "plan for N ranks (those that run)"},
                                 {"allow-lossy-input", 0, DZ_OPTION_FLAG, &allow_lossy, NULL, "also models restored from a lossy archive"},
                                 {"skip-unmatched", 0, DZ_OPTION_FLAG, &skip_unmatched, NULL, "as for compress"},
                                 {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_PLAN, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if (ranks < 1) {
        rc = dz_fail(err, DZ_EUSAGE, "plan: --ranks %d: at least 1", ranks);
        goto out;
    }
    if (anchor_every < 1 || anchor_every > DZ_ANCHOR_MOST) {
        rc = dz_fail(err, DZ_EUSAGE, "plan: --anchor-every %d: give 1 (no chains) to %d", anchor_every, DZ_ANCHOR_MOST);
        goto out;
    }
    request.sets = sets.values;
    request.nsets = sets.n;
    if ((rc = dz_zoo_open(world, args[0], &request, &zoo, err)) != DZ_OK) goto out;
    if (world->rank == 0) rc = dz_zoo_check_originals(&zoo, allow_lossy, &warnings, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if ((rc = dz_split_fused(world, &zoo, err)) != DZ_OK) goto out;
    if ((with_base || zoo.manifest->store_base) && (rc = dz_sync_error(world, dz_zoo_store_base(&zoo, err), err)) != DZ_OK) goto out;
    if (world->rank == 0) rc = dz_zoo_plan(&zoo, ranks, skip_unmatched, &plan, err);
    if ((rc = dz_sync_error(world, rc, err)) != DZ_OK) goto out;
    if (dz_has_parents(&zoo) && (rc = dz_generations_make(world, anchor_every, &zoo, NULL, &generations, &warnings, err)) != DZ_OK)
        goto out;
    if (world->rank == 0) {
        dz_print_notes(&plan->notes);
        if (!headers) dz_forecast_make(&zoo, plan, &generations, &forecast, err);
        warn(&zoo, &forecast, &warnings, err);
        if (json && err->rc == DZ_OK) print_json(&zoo, plan, &forecast, &warnings, err);
        if (!json && err->rc == DZ_OK) {
            print_setting(&zoo);
            print_tensors(&zoo, plan);
            putchar('\n');
            if (!headers) print_forecast(&zoo, plan, &forecast);
            print_work(plan);
            dz_print_notes(&warnings);
        }
        rc = err->rc;
    }
    rc = dz_sync_error(world, rc, err);
out:
    dz_buf_free(&warnings);
    dz_forecast_free(&forecast);
    dz_generations_free(&generations);
    dz_plan_free(plan);
    dz_zoo_close(&zoo);
    dz_option_list_free(&sets);
    return rc;
}

const dz_command DZ_CMD_PLAN = {
    "plan",
    "ZOO.yaml [--quality high|balanced|small] [--method NAME] [--recipe FILE|NAME] [--set KEY=VALUE]... [--headers] [--ranks N] "
    "[--skip-unmatched] [--json]",
    "Shows what compress would do: which tensors are lossy, how large the archive will be, how good the models will be.", run,
    "deltazoo plan zoo.yaml\n"
    "deltazoo plan zoo.yaml --set sparsity=0.99 --ranks 1024 --json"};
