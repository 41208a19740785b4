#include "base/error.h"

#include <stdio.h>
#include <string.h>

static void append_line(dz_error *err, const char *fmt, va_list args) {
    size_t used = strlen(err->text);
    if (used != 0 && used + 1 < sizeof err->text) err->text[used++] = '\n';
    int n = vsnprintf(err->text + used, sizeof err->text - used, fmt, args);
    if (n < 0 || (size_t)n >= sizeof err->text - used) {
        static const char more[] = "...";
        char *end = strrchr(err->text, '\n');
        if (end)
            *end = '\0'; /* whole lines; problems says that there are more */
        else
            memcpy(err->text + sizeof err->text - sizeof more, more, sizeof more);
        if (end && end < err->text + used) return;
    }
    if (strcmp(fmt, "%s") != 0) dz_one_line(err->text + used); /* that one passes on the lines of another error */
}

char *dz_one_line(char *text) {
    for (char *at = text; *at; at++) {
        if ((unsigned char)*at < 0x20 || *at == 0x7f) *at = '?';
    }
    return text;
}

dz_rc dz_fail(dz_error *err, dz_rc rc, const char *fmt, ...) {
    if (err->rc != DZ_OK) return err->rc;
    va_list args;
    va_start(args, fmt);
    err->text[0] = '\0';
    append_line(err, fmt, args);
    va_end(args);
    err->rc = rc;
    err->problems = 1;
    return rc;
}

dz_rc dz_fail_more(dz_error *err, dz_rc rc, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    if (err->rc == DZ_OK) err->text[0] = '\0';
    append_line(err, fmt, args);
    va_end(args);
    if (err->rc == DZ_OK) err->rc = rc;
    err->problems++;
    return err->rc;
}

void dz_fail_join(dz_error *err, const dz_error *more) {
    if (more->rc == DZ_OK) return;
    int problems = err->problems + more->problems;
    dz_fail_more(err, more->rc, "%s", more->text);
    if (more->rc == DZ_EUSAGE) err->rc = DZ_EUSAGE;
    err->problems = problems;
}

int dz_exit_code(dz_rc rc) {
    switch (rc) {
        case DZ_OK: return 0;
        case DZ_EUSAGE: return 2;
        case DZ_EDAMAGE: return 3;
        case DZ_EINTERRUPT: return 75;
        case DZ_EFAIL:
        case DZ_EVALUE:
        case DZ_ENOMEM: break;
    }
    return 1;
}
