#include "cli/help.h"

#include <stdio.h>
#include <string.h>

#include "base/version.h"
#include "config/recipe_text.h"

static const char EXIT_CODES[] =
    "0 done, 1 failed, 2 usage, recipe or manifest, 3 damage found, 75 interrupted (run the same command again to "
    "continue where it stopped)";

static void put_label(const dz_option *o, char left[80]) {
    snprintf(left, 80, "%s%c%s--%s%s%s", o->letter ? "-" : " ", o->letter ? o->letter : ' ', o->letter ? ", " : "  ", o->name,
             o->value ? " " : "", o->value ? o->value : "");
}

/* Text for roff: backslashes and hyphens escaped, no line begins with a control character. */
static void roff(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if (i == 0 && (text[0] == '.' || text[0] == '\'')) printf("\\&");
        if (text[i] == '\\')
            printf("\\e");
        else if (text[i] == '-')
            printf("\\-");
        else
            putchar(text[i]);
    }
}

static void roff_line(const char *before, const char *text, const char *after) {
    printf("%s", before);
    roff(text, strlen(text));
    printf("%s\n", after);
}

static void each_line(const char *text, void (*put)(const char *line, size_t len)) {
    for (const char *at = text; at && *at;) {
        size_t len = strcspn(at, "\n");
        put(at, len);
        at += len + (at[len] == '\n');
    }
}

#define COLUMNS 80

/* Length of the next word: up to a space that is neither within brackets nor between an option and its value. */
static size_t word_length(const char *text, size_t len) {
    int depth = 0, option = text[0] == '-' && len > 1 && text[1] != ' ';
    for (size_t i = 0; i < len; i++) {
        depth += (text[i] == '[') - (text[i] == ']');
        if (text[i] != ' ' || depth > 0) continue;
        if (!option || i + 1 == len || text[i + 1] == '-' || text[i + 1] == '[') return i;
        option = 0;
    }
    return len;
}

/* Prints `len` bytes of text that begin in column `at`. Lines break before COLUMNS, end in `broken`, and go on in column `indent`. */
static void wrapped(const char *text, size_t len, size_t at, size_t indent, const char *broken) {
    size_t room = COLUMNS - strlen(broken);
    for (int first = 1; len > 0; first = 0) {
        size_t word = word_length(text, len);
        if (!first && at + 1 + word > room) {
            printf("%s\n%*s", broken, (int)indent, "");
            at = indent;
        } else if (!first) {
            putchar(' ');
            at++;
        }
        printf("%.*s", (int)word, text);
        at += word;
        text += word;
        len -= word;
        while (len > 0 && *text == ' ') text++, len--;
    }
    putchar('\n');
}

static void wrapped_text(const char *text, size_t at, size_t indent) { wrapped(text, strlen(text), at, indent, ""); }

static void plain_example(const char *line, size_t len) {
    printf("  ");
    wrapped(line, len, 2, 6, " \\");
}

static void roff_example(const char *line, size_t len) {
    roff(line, len);
    putchar('\n');
}

static void roff_head(const char *name, const char *summary) {
    printf(".TH %s 1 \"\" \"deltazoo %s\"\n.SH NAME\n", name, DZ_VERSION);
    roff(name, strlen(name));
    printf(" \\- ");
    roff(summary, strlen(summary));
    printf("\n.SH SYNOPSIS\n");
}

/* The keys of --set, from the table that `help recipes` and completion have. */
static void man_keys(void) {
    printf(".SH KEYS OF \\-\\-set\nIn brackets the default.\n");
    for (int k = 0; k < DZ_NKEYS; k++) {
        char range[DZ_KEY_RANGE_TEXT];
        printf(".TP\n.B ");
        roff_line("", dz_recipe_key_name(k), "");
        roff_line("", dz_recipe_key_range(k, range), "");
        roff_line("(", dz_recipe_key_usual(k), ")");
    }
}

static void man_page(const dz_command *c, const dz_option *options) {
    char name[64];
    snprintf(name, sizeof name, "deltazoo-%s", c->name);
    roff_head(name, c->summary);
    printf(".B deltazoo %s\n", c->name);
    roff_line("", c->arguments, "");
    printf(".PP\n.B mpirun \\-n\n.I N\n.B deltazoo %s\n\\&...\n.SH DESCRIPTION\n", c->name);
    roff_line("", c->summary, "");
    printf(".SH OPTIONS\n");
    for (const dz_option *o = options; o->name; o++) {
        printf(".TP\n.B ");
        if (o->letter) printf("\\-%c, ", o->letter);
        roff_line("\\-\\-", o->name, "");
        if (o->value) roff_line(".I ", o->value, "");
        roff_line("", o->help, ".");
    }
    printf(".TP\n.B \\-\\-help\nThe same on the terminal.\n.SH EXIT STATUS\n");
    roff_line("", EXIT_CODES, ".");
    for (const dz_option *o = options; o->name; o++) {
        if (strcmp(o->name, "set") == 0) man_keys();
    }
    if (c->examples) {
        printf(".SH EXAMPLES\n.nf\n");
        each_line(c->examples, roff_example);
        printf(".fi\n");
    }
    printf(".SH SEE ALSO\n.BR deltazoo (1)\n");
}

static void print_option(const char *label, const char *help) {
    enum { HELP = 31 };
    printf("  %-*s", HELP - 3, label);
    if (strlen(label) > HELP - 3) printf("\n%*s", HELP - 1, "");
    putchar(' ');
    wrapped_text(help, HELP, HELP);
}

int dz_help_form_ok(const char *form) { return !form || strcmp(form, "man") == 0 || strcmp(form, "words") == 0; }

void dz_print_help(const dz_command *c, const dz_option *options, const char *form) {
    if (form && strcmp(form, "man") == 0) {
        man_page(c, options);
        return;
    }
    if (!form) {
        int used = printf("usage: deltazoo %s ", c->name);
        wrapped_text(c->arguments, (size_t)used, (size_t)used);
        putchar('\n');
        wrapped_text(c->summary, 0, 0);
        printf("\noptions:\n");
    }
    for (const dz_option *o = options; o->name; o++) {
        char left[80];
        put_label(o, left);
        if (form)
            printf("--%s%s\n", o->name, o->value ? "=" : "");
        else
            print_option(left, o->help);
    }
    if (form) return;
    print_option("    --help", "this text");
    if (c->examples) {
        printf("\nexamples:\n");
        each_line(c->examples, plain_example);
    }
}

void dz_print_program_help(const dz_command *const *commands, const char *form) {
    static const char summary[] = "stores fine-tuned models as small deltas against their base";
    if (form && strcmp(form, "words") == 0) {
        for (int i = 0; commands[i]; i++) printf("%s\n", commands[i]->name);
        return;
    }
    if (!form) {
        printf("deltazoo %s: %s\n\n", DZ_VERSION, summary);
        for (int i = 0; commands[i]; i++) {
            int used = printf("  deltazoo %-9s ", commands[i]->name);
            wrapped_text(commands[i]->arguments, (size_t)used, (size_t)used);
        }
        printf("\nEach runs alone or under mpirun or srun. 'deltazoo COMMAND --help' has more.\nTopics: 'deltazoo help recipes', 'help "
               "quality', 'help cluster'.\nExit codes: ");
        wrapped_text(EXIT_CODES, 12, 12);
        return;
    }
    roff_head("deltazoo", summary);
    printf(
        ".B deltazoo\n.I COMMAND\n\\&...\n.SH DESCRIPTION\n"
        "Stores each fine\\-tuned model of a zoo as a small delta against their common base. The base is not stored: keep it. The deltas "
        "are lossy by default. Each command runs alone or under\n"
        ".BR mpirun (1)\nor\n.BR srun (1);\nits results do not depend on the number of ranks.\n.SH COMMANDS\n");
    for (int i = 0; commands[i]; i++) {
        printf(".TP\n.BR deltazoo\\-%s (1)\n", commands[i]->name);
        roff_line("", commands[i]->summary, "");
    }
    printf(".SH EXIT STATUS\n");
    roff_line("", EXIT_CODES, ".");
    printf(".SH ENVIRONMENT\n.TP\n.B DZ_LOG_INTERVAL\nSeconds between progress lines if standard error is not a terminal.\n.TP\n.B "
           "DZ_PROGRESS\nbar or lines: how progress is shown. By default a bar if standard error, or that of mpirun, is a terminal.\n"
           ".TP\n.B "
           "DZ_JOURNAL_AFTER\nSeconds that a compress job runs before its journal goes to disk (10). A killed job repeats at most that.\n"
           ".TP\n.B DZ_KERNELS\n"
           "portable, avx2 or avx512: the kernels to use, instead of the fastest for the processor. All give the same bytes.\n"
           ".TP\n.B DZ_PYTHON\nThe Python whose matplotlib draws plots as PNG (python3).\n"
           ".SH FILES\n.TP\n.I ARCHIVE.partial\nThe next archive, while it is being written.\n.TP\n.I ARCHIVE.lock\nThe job that writes "
           "it.\n.TP\n.I "
           "ARCHIVE.generations/\n"
           "Archives of the finished generations of a job with parents, while it runs.\n.TP\n.I "
           "ARCHIVE.journal/\n"
           "The finished work of an interrupted job.\n");
}
