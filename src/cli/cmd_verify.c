#include <stdio.h>
#include <string.h>

#include "base/file.h"
#include "cli/cli.h"
#include "pipeline/verify.h"

static dz_rc tell_json(const char *path, const dz_verify_result *r, dz_error *err) {
    json_t *list = json_array();
    for (size_t at = 0; at < r->text.len;) {
        const char *line = (const char *)r->text.data + at, *end = memchr(line, '\n', r->text.len - at);
        size_t len = end ? (size_t)(end - line) : r->text.len - at;
        json_array_append_new(list, json_stringn(line, len));
        at += len + 1;
    }
    return dz_print_json(json_pack("{s:s, s:b, s:I, s:I, s:I, s:I, s:o}", "archive", path, "sound", r->problems == 0, "tasks",
                                   (json_int_t)r->ntasks, "tensors", (json_int_t)r->ntensors, "blocks", (json_int_t)r->nblocks,
                                   "payload_bytes", (json_int_t)r->nbytes, "problems", list),
                         NULL, err);
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
        for (size_t at = 0; at < r.text.len;) {
            const char *line = (const char *)r.text.data + at, *end = memchr(line, '\n', r.text.len - at);
            int len = (int)(end ? end - line : (ptrdiff_t)(r.text.len - at));
            fprintf(stderr, "deltazoo: damage: %.*s\n", len, line);
            at += (size_t)len + 1;
        }
        printf("%s: %llu task%s, %llu tensors, %llu blocks, %s: ", args[0], (unsigned long long)r.ntasks, r.ntasks == 1 ? "" : "s",
               (unsigned long long)r.ntensors, (unsigned long long)r.nblocks, dz_format_size((double)r.nbytes, size));
        if (r.problems)
            printf("%d problem%s\n", r.problems, r.problems == 1 ? "" : "s");
        else
            printf("sound%s, %.2f s\n", base ? ", base right" : "", r.secs);
    }
    if (rc == DZ_EDAMAGE && err->rc == DZ_OK && world->rank == 0) dz_fail(err, rc, "%s: is damaged", args[0]);
    dz_buf_free(&r.text);
    return rc;
}

const dz_command DZ_CMD_VERIFY = {"verify", "ARCHIVE [--base PATH] [--json]",
                                  "Checks structure, every checksum and every block; exit 3 on damage.", run,
                                  "deltazoo verify zoo.h5\n"
                                  "mpirun -n 2 deltazoo verify zoo.h5 --base base --json"};
