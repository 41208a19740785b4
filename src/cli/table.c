#include "cli/table.h"

#include <stdio.h>
#include <string.h>

int dz_table_width(size_t longest, size_t others, int wide) {
    size_t room = DZ_TABLE_COLUMNS > others + 12 ? DZ_TABLE_COLUMNS - others : 12;
    return (int)(wide || longest <= room ? longest : room);
}

const char *dz_table_name(const char *name, int width, char text[256]) {
    size_t len = strlen(name), room = (size_t)width;
    if (len <= room || room >= 256 || room < 4) return name;
    const char *tail = name + len - (room - 3);
    while ((*tail & 0xc0) == 0x80) tail++; /* not inside a UTF-8 character */
    snprintf(text, 256, "...%s", tail);
    return text;
}

void dz_print_wrapped(const char *text, int at, int indent) {
    while (*text) {
        int n = (int)strcspn(text, " "), spaces = (int)strspn(text + n, " "), next = (int)strcspn(text + n + spaces, " ");
        at += printf("%.*s", n, text);
        text += n + spaces;
        if (*text && at + spaces + next > DZ_TABLE_COLUMNS)
            at = printf("\n%*s", indent, "") - 1;
        else
            at += printf("%*s", spaces, "");
    }
    putchar('\n');
}
