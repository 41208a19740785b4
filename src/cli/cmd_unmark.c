#include <stdio.h>

#include "checkpoint/mark.h"
#include "cli/cli.h"

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *args[1];
    size_t n = 0;
    int helped = 0;
    const dz_option options[] = {{NULL, 0, DZ_OPTION_FLAG, NULL, NULL, NULL}};
    if (dz_parse_options(world, &DZ_CMD_UNMARK, argc, argv, options, args, 1, &helped, err) != DZ_OK || helped) return err->rc;
    if (world->rank == 0 && dz_mark_remove(args[0], &n, err) == DZ_OK) {
        if (n)
            printf("%s: %zu mark%s taken off\n", args[0], n, n == 1 ? "" : "s");
        else
            dz_fail(err, DZ_EFAIL, "%s: carries no mark of deltazoo restore", args[0]);
    }
    return dz_sync_error(world, err->rc, err);
}

const dz_command DZ_CMD_UNMARK = {"unmark", "MODEL",
                                  "Takes off a restored model what says that it is not the original: the mark in its headers, and "
                                  "deltazoo.json. Tensors stay as they are.",
                                  run, "deltazoo unmark restored"};
