#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "cli/help.h"
#include "pipeline/version.h"

static const dz_command *const COMMANDS[] = {&DZ_CMD_SYNTH,   &DZ_CMD_COMPRESS, &DZ_CMD_RESTORE, &DZ_CMD_INFO,   &DZ_CMD_VERIFY,
                                             &DZ_CMD_COMPARE, &DZ_CMD_PLAN,     &DZ_CMD_REMOVE,  &DZ_CMD_REPACK, &DZ_CMD_RECIPES,
                                             &DZ_CMD_SCAN,    &DZ_CMD_REPORT,   &DZ_CMD_EXPORT,  &DZ_CMD_IMPORT, NULL};

static void print_error(const dz_error *err) {
    for (const char *at = err->text; *at;) {
        size_t len = strcspn(at, "\n");
        fprintf(stderr, "deltazoo: error: %.*s\n", (int)len, at);
        at += len + (at[len] == '\n');
    }
}

/* A zoo has more shards than the usual limit of 1024 open files allows. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

int main(int argc, char **argv) {
    dz_world world;
    dz_error err = {0};
    dz_rc rc = DZ_OK;
    const dz_command *command = NULL;
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* large buffers are reused, not given back and faulted in again */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    raise_file_limit();
    dz_world_begin(&world, &argc, &argv);
    const char *name = argc > 1 ? argv[1] : "";
    for (int i = 0; COMMANDS[i]; i++) {
        if (strcmp(COMMANDS[i]->name, name) == 0) command = COMMANDS[i];
    }
    if (command) {
        rc = command->run(&world, argc - 1, argv + 1, &err);
        rc = dz_agree(&world, rc, &err);
    } else if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strncmp(name, "--help=", 7) == 0) {
        if (world.rank == 0 && !dz_print_program_help(COMMANDS, name[0] == '-' && name[6] == '=' ? name + 7 : NULL)) rc = DZ_EUSAGE;
    } else if (strcmp(name, "--version") == 0) {
        if (world.rank == 0) printf("deltazoo %s\n", DZ_VERSION);
    } else {
        rc = DZ_EUSAGE;
        if (world.rank == 0)
            dz_fail(&err, rc, argc > 1 ? "unknown command '%s' (deltazoo --help)" : "a command is wanted (deltazoo --help)%s", name);
    }
    if (world.rank == 0 && rc != DZ_OK) print_error(&err);
    if (world.rank == 0 && fflush(stdout) != 0 && rc == DZ_OK) rc = DZ_EFAIL;
    dz_world_end(&world);
    return dz_exit_code(rc);
}
