#include "plan/name_parts.h"

#include <ctype.h>
#include <string.h>

#define MAX_DIGITS 9
#define MAX_WORD 32

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static dz_part part_of(const char *text, size_t len) {
    dz_part part = {.text = text, .len = (uint32_t)len, .number = DZ_NOT_NUMBERED};
    size_t first = len;
    while (first > 0 && is_digit(text[first - 1])) first--;
    if (first == len || len - first > MAX_DIGITS) return part;
    part.number = 0;
    for (size_t i = first; i < len; i++) part.number = part.number * 10 + (text[i] - '0');
    part.len = (uint32_t)first;
    return part;
}

void dz_name_split(const char *name, dz_parts_of_name *parts) {
    parts->name = name;
    parts->n = 0;
    for (const char *at = name; parts->n < DZ_MAX_PARTS;) {
        size_t len = strcspn(at, "./");
        parts->part[parts->n++] = part_of(at, len);
        if (!at[len]) break;
        at += len + 1;
    }
}

static int is_listed(const char *word, size_t len, const char *words) {
    for (const char *at = words; *at;) {
        size_t n = strcspn(at, " ");
        if (n == len && memcmp(at, word, n) == 0) return 1;
        at += n + (at[n] == ' ');
    }
    return 0;
}

/* Whether a new word begins at a character: after '_' or '-', at a capital after a small letter, or at the last of several capitals. */
static int begins_word(const char *text, size_t len, size_t i) {
    if (i == 0 || !isalpha((unsigned char)text[i - 1])) return 1;
    if (!isupper((unsigned char)text[i])) return 0;
    return !isupper((unsigned char)text[i - 1]) || (i + 1 < len && islower((unsigned char)text[i + 1]));
}

int dz_part_has(const dz_part *part, const char *words) {
    char word[MAX_WORD];
    size_t n = 0;
    for (size_t i = 0; i <= part->len; i++) {
        int letter = i < part->len && isalpha((unsigned char)part->text[i]);
        if (n && (!letter || begins_word(part->text, part->len, i))) {
            if (n < MAX_WORD && is_listed(word, n, words)) return 1;
            n = 0;
        }
        if (!letter) continue;
        if (n < MAX_WORD) word[n] = (char)tolower((unsigned char)part->text[i]);
        n++;
    }
    return 0;
}

int dz_part_contains(const dz_part *part, const char *text) {
    size_t len = strlen(text);
    for (size_t i = 0; i + len <= part->len; i++) {
        size_t k = 0;
        while (k < len && tolower((unsigned char)part->text[i + k]) == text[k]) k++;
        if (k == len) return 1;
    }
    return 0;
}

int dz_part_is(const dz_part *part, const char *words) {
    char word[MAX_WORD];
    if (part->len == 0 || part->len >= MAX_WORD) return 0;
    for (size_t i = 0; i < part->len; i++) word[i] = (char)tolower((unsigned char)part->text[i]);
    return is_listed(word, part->len, words);
}
