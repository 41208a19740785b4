#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "scan/scan.h"

/* A distance is null where two tasks have too little in common to be compared. */
static dz_rc tell_json(const dz_scan_result *r, dz_error *err) {
    json_t *zoos = json_array(), *alone = json_array();
    int failed = 0;
    for (size_t b = 0; b < r->nmodels; b++) {
        const dz_scan_model *base = &r->models[b];
        if (base->base != b || base->bad) continue;
        if (base->ntasks == 0) {
            if (base->equal) continue;
            failed |= json_array_append_new(alone, json_pack("{s:s, s:s}", "name", base->name, "path", base->path));
            continue;
        }
        json_t *tasks = json_array();
        for (size_t i = 0; i < r->nmodels; i++) {
            const dz_scan_model *m = &r->models[i];
            if (i != b && m->base == b && !m->equal)
                failed |= json_array_append_new(tasks, json_pack("{s:s, s:s, s:s, s:o, s:o}", "name", m->name, "path", m->path, "kind",
                                                                 m->is_adapter ? "adapter" : "model", "distance",
                                                                 m->is_adapter ? json_null() : dz_json_number(m->distance), "distance_sum",
                                                                 m->is_adapter ? json_null() : dz_json_number(m->sum)));
        }
        failed |=
            json_array_append_new(zoos, json_pack("{s:s?, s:{s:s, s:s, s:o}, s:o}", "manifest", base->manifest, "base", "name", base->name,
                                                  "path", base->path, "distance_sum", dz_json_number(base->sum), "tasks", tasks));
    }
    json_t *left = json_array();
    for (size_t at = 0; at < r->left.len; at += strcspn((const char *)r->left.data + at, "\n") + 1) {
        const char *line = (const char *)r->left.data + at;
        size_t name = strcspn(line, "\t"), all = strcspn(line, "\n");
        json_t *why = json_pack("{s:o, s:o}", "name", dz_json_text(line, name), "why", dz_json_text(line + name + 1, all - name - 1));
        failed |= json_array_append_new(left, why);
    }
    json_t *all = json_pack("{s:o, s:o, s:o}", "zoos", zoos, "alone", alone, "left_out", left);
    if (!failed) return dz_print_json(all, NULL, err);
    json_decref(all);
    return dz_fail(err, DZ_EFAIL, "no JSON of this scan: a path is not UTF-8, or memory is out");
}

static void tell(const dz_scan_result *r) {
    size_t width = 4;
    for (size_t i = 0; i < r->nmodels; i++) width = strlen(r->models[i].name) > width ? strlen(r->models[i].name) : width;
    for (size_t b = 0; b < r->nmodels; b++) {
        const dz_scan_model *base = &r->models[b];
        if (base->ntasks == 0) continue;
        printf("%s%sbase %s, %zu task%s\n  %-*s %9s %16s\n", base->manifest ? base->manifest : "", base->manifest ? ": " : "", base->name,
               base->ntasks, base->ntasks == 1 ? "" : "s", (int)width, "", "from base", "from all, summed");
        printf("  %-*s %9s %16.4f\n", (int)width, base->name, "-", base->sum);
        for (size_t i = 0; i < r->nmodels; i++) {
            if (i == b || r->models[i].base != b || r->models[i].equal) continue;
            if (r->models[i].is_adapter)
                printf("  %-*s %9s %16s\n", (int)width, r->models[i].name, "adapter", "-");
            else
                printf("  %-*s %9.4f %16.4f\n", (int)width, r->models[i].name, r->models[i].distance, r->models[i].sum);
        }
    }
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[1];
    int json = 0, helped = 0;
    dz_option_list bases = {0};
    dz_scan_options opt = {0};
    dz_scan_result result = {0};
    const dz_option options[] = {
        {"output", 'o', DZ_OPTION_TEXT, &opt.out, "ZOO.yaml", "write the manifest; with several bases ZOO-BASE.yaml for each"},
        {"base", 'b', DZ_OPTION_LIST, &bases, "NAME|PATH",
         "use this model as a base, also one outside DIR (default: what model cards name, else distances)"},
        {"list", 0, DZ_OPTION_TEXT, &opt.list, "LIST",
         "with -o: also write the list that jobs/array.sbatch and report take: manifest and archive of each base, and what is in no zoo"},
        {"archives", 0, DZ_OPTION_TEXT, &opt.archives, "FOLDER", "where the list puts the archives (default: beside the manifests)"},
        {"chains", 0, DZ_OPTION_FLAG, &opt.chains, NULL, "checkpoints of a run (step-100, step-200) get the one before as their parent"},
        {"force", 0, DZ_OPTION_FLAG, &opt.force, NULL, "replace existing manifests and the list"},
        {"allow-lossy-input", 0, DZ_OPTION_FLAG, &opt.allow_lossy, NULL, "also models restored from a lossy archive"},
        {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
        {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    dz_rc rc = dz_parse_options(world, &DZ_CMD_SCAN, argc, argv, options, args, 1, &helped, err);
    if (rc != DZ_OK || helped) goto out;
    if ((opt.list && !opt.out) || (opt.archives && !opt.list)) {
        rc = dz_fail(err, DZ_EUSAGE, "scan: %s", opt.list ? "--list needs -o ZOO.yaml" : "--archives needs --list LIST");
        goto out;
    }
    opt.dir = args[0];
    opt.bases = bases.values;
    opt.nbases = bases.n;
    rc = dz_scan(world, &opt, &result, err);
    if (world->rank == 0) dz_print_notes(&result.notes);
    if (rc == DZ_OK && world->rank == 0) {
        if (json)
            rc = tell_json(&result, err);
        else
            tell(&result);
    }
out:
    dz_scan_result_free(&result);
    dz_option_list_free(&bases);
    return rc;
}

const dz_command DZ_CMD_SCAN = {
    "scan", "DIR [-o ZOO.yaml] [--list LIST] [--base NAME]... [--json]",
    "Finds which models of a folder share a base, and writes a manifest for each base with -o. Adapters (LoRA) are "
    "tasks of the base that they name. It names what it skips: quantised copies, unreadable files.",
    run,
    "deltazoo scan models -o found.yaml\n"
    "deltazoo scan models -o family.yaml --list families.txt\n"
    "mpirun -n 2 deltazoo scan models -o found.yaml --base base --force"};
