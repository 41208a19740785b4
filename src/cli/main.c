#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#include "base/log.h"
#include "base/version.h"
#include "cli/help.h"

static const dz_command *const COMMANDS[] = {&DZ_CMD_SYNTH,
                                             &DZ_CMD_COMPRESS,
                                             &DZ_CMD_TUNE,
                                             &DZ_CMD_RESTORE,
                                             &DZ_CMD_INFO,
                                             &DZ_CMD_VERIFY,
                                             &DZ_CMD_COMPARE,
                                             &DZ_CMD_DIFF,
                                             &DZ_CMD_PLAN,
                                             &DZ_CMD_REMOVE,
                                             &DZ_CMD_REPACK,
                                             &DZ_CMD_RECIPES,
                                             &DZ_CMD_SCAN,
                                             &DZ_CMD_REPORT,
                                             &DZ_CMD_EXPORT,
                                             &DZ_CMD_IMPORT,
                                             &DZ_CMD_UNMARK,
                                             &DZ_CMD_DOCTOR,
                                             NULL};

static void print_error(const dz_error *err) {
    int lines = 0;
    for (const char *at = err->text; *at; lines++) {
        size_t len = strcspn(at, "\n");
        dz_message("error", "%.*s", (int)len, at);
        at += len + (at[len] == '\n');
    }
    if (err->problems > lines) dz_message("error", "and %d more", err->problems - lines);
}

static const dz_command *find_command(const char *name) {
    for (int i = 0; COMMANDS[i]; i++) {
        if (strcmp(COMMANDS[i]->name, name) == 0) return COMMANDS[i];
    }
    return NULL;
}

static dz_rc print_help(const dz_world *world, const char *form, dz_error *err) {
    if (!dz_help_form_ok(form)) return dz_fail(err, DZ_EUSAGE, "--help=%s: man and words are the other forms", form);
    if (world->rank == 0) dz_print_program_help(COMMANDS, form);
    return DZ_OK;
}

/* help COMMAND is COMMAND --help; help TOPIC tells what concerns several commands. */
static dz_rc print_topic(const dz_world *world, const char *name, dz_error *err) {
    const dz_command *command = find_command(name);
    char *again[] = {(char *)(uintptr_t)name, (char *)(uintptr_t) "--help", NULL};
    if (command && command->run(world, 2, again, err) != DZ_OK) return err->rc;
    if (world->rank == 0 && command && dz_is_topic(name)) putchar('\n');
    if (world->rank == 0 && !dz_print_topic(name) && !command)
        dz_fail(err, DZ_EUSAGE, "help: no command and no topic '%s' (topics: recipes, quality, cluster)", name);
    return dz_sync_error(world, err->rc, err);
}

static dz_rc run(const dz_world *world, int argc, char **argv, dz_error *err) {
    const char *name = argc > 1 ? argv[1] : "";
    const dz_command *command = find_command(name);
    if (command) return command->run(world, argc - 1, argv + 1, err);
    if (strcmp(name, "help") == 0 && argc > 2) return print_topic(world, argv[2], err);
    if (strcmp(name, "help") == 0 || strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return print_help(world, NULL, err);
    if (strncmp(name, "--help=", 7) == 0) return print_help(world, name + 7, err);
    if (strcmp(name, "--version") == 0 || strcmp(name, "-V") == 0 || strcmp(name, "version") == 0) {
        if (world->rank == 0) printf("deltazoo %s\n", DZ_VERSION);
        return DZ_OK;
    }
    return dz_fail(err, DZ_EUSAGE, argc > 1 ? "unknown command '%s' (deltazoo --help)" : "a command is wanted (deltazoo --help)%s", name);
}

/* A result that was not written is a failure, also where it stayed in stdout's buffer until now. */
static dz_rc flush_output(dz_error *err) {
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return DZ_OK;
    return dz_fail(err, DZ_EFAIL, "stdout: cannot write: %s", strerror(errno ? errno : EIO));
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
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20); /* large buffers are reused, not given back and faulted in again */
    mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
    raise_file_limit();
    dz_world_begin(&world, &argc, &argv);
    dz_rc rc = dz_sync_error(&world, run(&world, argc, argv, &err), &err);
    if (rc == DZ_OK) rc = dz_sync_error(&world, flush_output(&err), &err);
    if (world.rank == 0 && rc != DZ_OK) print_error(&err);
    dz_world_end(&world, dz_exit_code(rc));
    return dz_exit_code(rc);
}
