#include "cli/cli.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/file.h"
#include "base/log.h"
#include "base/notes.h"
#include "base/staging.h"
#include "cli/help.h"
#include "config/recipe.h"
#include "config/recipe_text.h"

#define MOST_OPTIONS 32

static dz_rc take_whole(const dz_option *o, const char *text, uint64_t most, uint64_t *out, dz_error *err) {
    if (dz_parse_whole(text, most, out)) return DZ_OK;
    return dz_fail(err, DZ_EUSAGE, "--%s: '%s' is not a whole number up to %llu", o->name, text, (unsigned long long)most);
}

static dz_rc take_size(const dz_option *o, const char *text, dz_error *err) {
    dz_error why = {0};
    uint64_t *size = o->target;
    if (dz_parse_size(text, size, &why) != DZ_OK) return dz_fail(err, DZ_EUSAGE, "--%s: %s", o->name, why.text);
    return *size ? DZ_OK : dz_fail(err, DZ_EUSAGE, "--%s: '%s' is no size at all", o->name, text);
}

static dz_rc add_value(dz_option_list *list, const char *value, dz_error *err) {
    const char **grown = realloc(list->values, (list->n + 1) * sizeof *grown);
    if (!grown) return dz_fail(err, DZ_ENOMEM, "out of memory");
    list->values = grown;
    grown[list->n++] = value;
    return DZ_OK;
}

/* "target-ratio" and "100" as "target_ratio=100". */
static dz_rc add_key(dz_option_list *list, const char *name, const char *value, dz_error *err) {
    char *text = dz_format(err, "%s=%s", name, value), **grown = realloc(list->owned, (list->nowned + 1) * sizeof *grown);
    if (grown) list->owned = grown;
    if (!text || !grown) {
        free(text);
        return dz_fail(err, DZ_ENOMEM, "out of memory");
    }
    for (char *at = text; *at != '='; at++) *at = *at == '-' ? '_' : *at;
    grown[list->nowned++] = text;
    return add_value(list, text, err);
}

static dz_rc take(const dz_option *o, const char *text, dz_error *err) {
    uint64_t x = 0;
    if (text && !text[0]) return dz_fail(err, DZ_EUSAGE, "--%s: its value is empty", o->name);
    switch (o->kind) {
        case DZ_OPTION_FLAG: *(int *)o->target = 1; break;
        case DZ_OPTION_TEXT: *(const char **)o->target = text; break;
        case DZ_OPTION_INT:
            if (take_whole(o, text, 1 << 30, &x, err) == DZ_OK) *(int *)o->target = (int)x;
            break;
        case DZ_OPTION_U64: take_whole(o, text, UINT64_MAX, o->target, err); break;
        case DZ_OPTION_SIZE: take_size(o, text, err); break;
        case DZ_OPTION_LIST: add_value(o->target, text, err); break;
        case DZ_OPTION_KEY: add_key(o->target, o->name, text, err); break;
    }
    return err->rc;
}

void dz_option_list_free(dz_option_list *list) {
    for (size_t i = 0; i < list->nowned; i++) free(list->owned[i]);
    free(list->owned);
    free(list->values);
    *list = (dz_option_list){0};
}

/* --sparsity, --sparsity=0.9: a key of recipes. */
static int is_recipe_key(const char *option) {
    return strncmp(option, "--", 2) == 0 && dz_recipe_key(option + 2, strcspn(option + 2, "=")) >= 0;
}

/* The option as a setting: "sparsity=0.9". */
static const char *setting_of(const char *option, const char *next, char text[256]) {
    size_t len = strcspn(option + 2, "=");
    const char *value = option[2 + len] ? option + 3 + len : next && next[0] != '-' ? next : "VALUE";
    snprintf(text, 256, "%.*s=%.100s", (int)len, option + 2, value);
    return text;
}

dz_rc dz_require(const dz_command *command, const dz_required *list, dz_error *err) {
    char text[256] = "";
    size_t n = 0, done = 0;
    for (const dz_required *r = list; r->what; r++) n += !r->given;
    for (const dz_required *r = list; r->what; r++) {
        if (r->given) continue;
        size_t len = strlen(text);
        snprintf(text + len, sizeof text - len, "%s%s", done == 0 ? "" : done + 1 == n ? " and " : ", ", r->what);
        done++;
    }
    return n ? dz_fail(err, DZ_EUSAGE, "%s: %s %s missing (deltazoo %s --help)", command->name, text, n == 1 ? "is" : "are", command->name)
             : DZ_OK;
}

static dz_rc parse_options(const dz_world *world, const dz_command *command, int argc, char **argv, const dz_option *options,
                           const char **args, int nargs, int *helped, dz_error *err) {
    struct option longs[MOST_OPTIONS + 2] = {{0}};
    char shorts[2 * MOST_OPTIONS + 3] = ":", text[256];
    int n = 0;
    for (const dz_option *o = options; o->name; o++, n++) {
        int has = o->kind == DZ_OPTION_FLAG ? no_argument : required_argument;
        longs[n] = (struct option){.name = o->name, .has_arg = has, .val = 256 + n};
        if (o->letter) {
            size_t at = strlen(shorts);
            shorts[at] = o->letter;
            shorts[at + 1] = has == required_argument ? ':' : '\0';
        }
    }
    longs[n] = (struct option){.name = "help", .has_arg = optional_argument, .val = 255};
    strcat(shorts, "h");
    opterr = 0;
    optind = 0;
    for (int c; (c = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        if (c == 255 || c == 'h') {
            *helped = 1;
            if (!dz_help_form_ok(optarg)) return dz_fail(err, DZ_EUSAGE, "--help=%s: man and words are the other forms", optarg);
            if (world->rank == 0) dz_print_help(command, options, optarg);
            return DZ_OK;
        }
        int which = c >= 256 ? c - 256 : -1;
        for (int i = 0; c < 256 && i < n; i++) which = options[i].letter == c ? i : which;
        if (c == ':') return dz_fail(err, DZ_EUSAGE, "%s: option '%s' needs a value", command->name, argv[optind - 1]);
        if ((c == '?' || which < 0) && is_recipe_key(argv[optind - 1]))
            return dz_fail(err, DZ_EUSAGE, "%s: unknown option '%s': it is a key of the recipe: --set %s (deltazoo help recipes)",
                           command->name, argv[optind - 1], setting_of(argv[optind - 1], argc > optind ? argv[optind] : NULL, text));
        if (c == '?' || which < 0)
            return dz_fail(err, DZ_EUSAGE, "%s: unknown option '%s' (deltazoo %s --help)", command->name, argv[optind - 1], command->name);
        if (take(&options[which], optarg, err) != DZ_OK) return err->rc;
    }
    if (nargs == DZ_ANY_ARGS && argc == optind)
        return dz_fail(err, DZ_EUSAGE, "%s: an argument is wanted: deltazoo %s %s", command->name, command->name, command->arguments);
    if (nargs != DZ_ANY_ARGS && argc - optind != nargs)
        return dz_fail(err, DZ_EUSAGE, "%s: %d argument%s wanted, %d given: deltazoo %s %s", command->name, nargs, nargs == 1 ? "" : "s",
                       argc - optind, command->name, command->arguments);
    for (int i = optind; i < argc; i++) {
        if (!argv[i][0])
            return dz_fail(err, DZ_EUSAGE, "%s: an argument is empty: deltazoo %s %s", command->name, command->name, command->arguments);
    }
    for (int i = 0; i < nargs; i++) args[i] = argv[optind + i];
    return DZ_OK;
}

dz_rc dz_parse_options(const dz_world *world, const dz_command *command, int argc, char **argv, const dz_option *options, const char **args,
                       int nargs, int *helped, dz_error *err) {
    return dz_sync_error(world, parse_options(world, command, argc, argv, options, args, nargs, helped, err), err);
}

json_t *dz_json_text(const char *text, size_t len) {
    json_t *json = json_stringn(text, len);
    if (json) return json;
    char *copy = malloc(4 * len + 1), *to = copy;
    if (!copy) return json_null();
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        to += c < 0x80 ? (*to = (char)c, 1) : sprintf(to, "\\x%02x", c);
    }
    json = json_stringn(copy, (size_t)(to - copy));
    free(copy);
    return json;
}

json_t *dz_json_number(double x) { return isfinite(x) ? json_real(x) : json_null(); }

dz_rc dz_print_json(json_t *root, const char *path, dz_error *err) {
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(10)) : NULL;
    json_decref(root);
    if (!text) return dz_fail(err, DZ_ENOMEM, "out of memory for a JSON text");
    if (path)
        dz_replace_file(path, text, strlen(text), err);
    else if (puts(text) == EOF)
        dz_fail(err, DZ_EFAIL, "stdout: cannot write: %s", strerror(errno));
    free(text);
    return err->rc;
}

void dz_print_notes(const dz_buf *lines) {
    dz_error none = {0};
    dz_buf grouped = {0};
    const dz_buf *notes = dz_notes_group(lines, &grouped, &none) == DZ_OK ? &grouped : lines;
    for (size_t at = 0; at < notes->len;) {
        const char *line = (const char *)notes->data + at, *end = memchr(line, '\n', notes->len - at);
        size_t len = end ? (size_t)(end - line) : notes->len - at;
        dz_message("note", "%.*s", (int)len, line);
        at += len + 1;
    }
    dz_buf_free(&grouped);
}
