/* The command line: a table of subcommands, each with a declarative table of options. */
#ifndef DZ_CLI_CLI_H
#define DZ_CLI_CLI_H

#include <jansson.h>

#include "parallel/world.h"

typedef enum dz_option_kind {
    DZ_OPTION_FLAG,
    DZ_OPTION_TEXT,
    DZ_OPTION_LIST,
    DZ_OPTION_KEY,
    DZ_OPTION_INT,
    DZ_OPTION_U64,
    DZ_OPTION_SIZE
} dz_option_kind;

typedef struct dz_option_list {
    const char **values;
    size_t n;
    char **owned; /* those of the values that were made: KEY=VALUE of a DZ_OPTION_KEY */
    size_t nowned;
} dz_option_list;

typedef struct dz_option {
    const char *name; /* long; NULL ends the table */
    char letter;      /* 0: none */
    dz_option_kind kind;
    void *target;      /* int *, const char **, dz_option_list * (LIST, KEY), int *, uint64_t *, uint64_t * */
    const char *value; /* its name in the help */
    const char *help;
} dz_option;

typedef struct dz_command {
    const char *name, *arguments, *summary;
    dz_rc (*run)(const dz_world *world, int argc, char **argv, dz_error *err);
    const char *examples; /* command lines, newline-separated; NULL: none */
} dz_command;

/* The keys of a recipe that are options of their own; --NAME VALUE is --set NAME=VALUE. */
#define DZ_METHOD_OPTIONS(sets)                                                                                                            \
    {"quality",                                                                                                                            \
     0,                                                                                                                                    \
     DZ_OPTION_KEY,                                                                                                                        \
     &(sets),                                                                                                                              \
     "high|balanced|small",                                                                                                                \
     "fixed accuracy: as many bytes as the models need (balanced); or lossless"},                                                          \
        {"target-ratio", 0, DZ_OPTION_KEY, &(sets), "R", "fixed rate: the lossy tensors R times smaller, from 2 on"},                      \
        {"method", 0, DZ_OPTION_KEY, &(sets), "NAME", "auto (default), ultradelta, dare, magnitude or bitdelta"},                          \
        {"sparsity", 0, DZ_OPTION_KEY, &(sets), "S", "share of the elements to drop (ultradelta, dare, magnitude)"}, {                     \
        "seed", 0, DZ_OPTION_KEY, &(sets), "N", "of all random choices (42)"                                                               \
    }

#define DZ_ANY_ARGS (-1) /* one or more: argv[optind] (unistd.h) and what follows */

/* Parses options anywhere among exactly `nargs` positional arguments (DZ_ANY_ARGS: `args` stays as it is). `--help` (or --help=man,
 * --help=words: help.h) prints the command's help on rank 0 and returns 1 in
 * `*helped`. Every rank parses alike. DZ_EUSAGE otherwise. */
dz_rc dz_parse_options(const dz_world *world, const dz_command *command, int argc, char **argv, const dz_option *options, const char **args,
                       int nargs, int *helped, dz_error *err);
void dz_option_list_free(dz_option_list *list);

extern const dz_command DZ_CMD_SYNTH, DZ_CMD_COMPRESS, DZ_CMD_RESTORE, DZ_CMD_INFO, DZ_CMD_VERIFY, DZ_CMD_COMPARE, DZ_CMD_PLAN,
    DZ_CMD_REMOVE, DZ_CMD_REPACK, DZ_CMD_RECIPES, DZ_CMD_SCAN, DZ_CMD_REPORT, DZ_CMD_EXPORT, DZ_CMD_IMPORT, DZ_CMD_UNMARK, DZ_CMD_DOCTOR,
    DZ_CMD_DIFF, DZ_CMD_TUNE;

/* What a command cannot do without. */
typedef struct dz_required {
    int given;
    const char *what; /* "--base PATH"; NULL ends the list */
} dz_required;

/* DZ_EUSAGE naming those that are not given, and only those. */
dz_rc dz_require(const dz_command *command, const dz_required *list, dz_error *err);

/* A text from a file; bytes that are not UTF-8 are escaped one by one. */
json_t *dz_json_text(const char *text, size_t len);

/* A number, or null where it is not finite. */
json_t *dz_json_number(double x);

/* Rank 0: prints a JSON value on stdout (or into a file) and releases it. */
dz_rc dz_print_json(json_t *root, const char *path, dz_error *err);

/* Rank 0: notes, a "deltazoo: note: " line each on stderr. */
void dz_print_notes(const dz_buf *notes);

#endif
