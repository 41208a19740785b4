#include <stdio.h>
#include <string.h>

#include "archive_ops/verify.h"
#include "base/file.h"
#include "base/log.h"
#include "cli/cli.h"
#include "cli/report.h"

static dz_rc tell_json(const char *path, const dz_verify_result *r, dz_error *err) {
    json_t *list = dz_damage_json(&r->damage), *lines = json_array(), *entry;
    size_t i;
    json_array_foreach(list, i, entry) json_array_append(lines, json_object_get(entry, "message"));
    return dz_print_json(json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "archive", path, "sound", r->damage.count == 0,
                                   "tasks", (json_int_t)r->ntasks, "tensors", (json_int_t)r->ntensors, "blocks", (json_int_t)r->nblocks,
                                   "payload_bytes", (json_int_t)r->nbytes, "damage_count", (json_int_t)r->damage.count, "damage", list,
                                   "problems", lines, "foreign", dz_json_lines(&r->foreign)),
                         NULL, err);
}

/* What to do about damage: a task that cannot be read at all can only go; of others there is something left. */
static void give_advice(const char *path, const dz_verify_result *r, dz_error *err) {
    const char *first = (const char *)r->lost.data;
    if (r->lost.len == 0)
        dz_fail(err, DZ_EDAMAGE, "%s: is damaged ('deltazoo restore --keep-going' restores the rest)", path);
    else
        dz_fail(err, DZ_EDAMAGE, "%s: is damaged: task '%.*s' cannot be read ('deltazoo remove %s --task %.*s' drops it%s)", path,
                (int)strcspn(first, "\n"), first, path, (int)strcspn(first, "\n"), first,
                r->only_lost ? "; every other task is sound" : "");
}

static void print_foreign(const char *path, const dz_buf *lines) {
    for (size_t at = 0; at < lines->len;) {
        const char *line = (const char *)lines->data + at, *end = memchr(line, '\n', lines->len - at);
        dz_message("note", "%s: %.*s is not of the archive: stepped over", path, (int)(end ? end - line : 0), line);
        at += (size_t)(end ? end - line : 0) + 1;
    }
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *base = NULL, *args[1];
    int json = 0, quiet = 0, helped = 0;
    dz_verify_result r = {0};
    const dz_option options[] = {{"base", 'b', DZ_OPTION_TEXT, &base, "PATH", "also check the base, and decode everything against it"},
                                 {"json", 0, DZ_OPTION_FLAG, &json, NULL, "for programs"},
                                 {"quiet", 'q', DZ_OPTION_FLAG, &quiet, NULL, "no progress"},
                                 {NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_VERIFY, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    dz_rc rc = dz_verify(world, args[0], base, quiet, &r, err);
    int finished = rc == DZ_OK || (rc == DZ_EDAMAGE && err->rc == DZ_OK);
    if (world->rank == 0 && finished && json) {
        tell_json(args[0], &r, err);
    } else if (world->rank == 0 && finished) {
        char size[32];
        print_foreign(args[0], &r.foreign);
        dz_print_damage(&r.damage);
        printf("%s: %llu task%s, %llu tensors, %llu blocks, %s: ", args[0], (unsigned long long)r.ntasks, r.ntasks == 1 ? "" : "s",
               (unsigned long long)r.ntensors, (unsigned long long)r.nblocks, dz_format_size((double)r.nbytes, size));
        if (r.damage.count)
            printf("%llu problem%s\n", (unsigned long long)r.damage.count, r.damage.count == 1 ? "" : "s");
        else
            printf("sound%s, %.2f s\n", base ? ", base right" : "", r.secs);
    }
    if (rc == DZ_EDAMAGE && err->rc == DZ_OK && world->rank == 0) give_advice(args[0], &r, err);
    dz_buf_free(&r.foreign);
    dz_buf_free(&r.lost);
    dz_damage_free(&r.damage);
    return rc;
}

const dz_command DZ_CMD_VERIFY = {"verify", "ARCHIVE [--base PATH] [--json]",
                                  "Checks structure, every checksum and every block; exit 3 on damage.", run,
                                  "deltazoo verify zoo.h5\n"
                                  "mpirun -n 2 deltazoo verify zoo.h5 --base base --json"};
