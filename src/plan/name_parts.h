/* The name of a tensor taken apart: "model.layers.7.mlp.up_proj.weight" has six parts, of which the third is a number. Parts are separated
 * by
 * '.' or '/'. Words are what a part is made of: "up_proj" of up and proj, "SelfAttention" of self and attention, "conv2" of conv. */
#ifndef DZ_PLAN_NAME_PARTS_H
#define DZ_PLAN_NAME_PARTS_H

#include <stddef.h>
#include <stdint.h>

#define DZ_MAX_PARTS 24
#define DZ_NOT_NUMBERED (-1)

typedef struct dz_part {
    const char *text; /* into the name */
    uint32_t len;     /* without the number at its end */
    int32_t number;   /* "7": 7 with len 0; "layer_7", "layer7": 7 as well; DZ_NOT_NUMBERED */
} dz_part;

typedef struct dz_parts_of_name {
    const char *name;
    dz_part part[DZ_MAX_PARTS];
    size_t n;
} dz_parts_of_name;

/* A name of more parts than DZ_MAX_PARTS: the first ones. `*parts` points into `name`. */
void dz_name_split(const char *name, dz_parts_of_name *parts);

/* "7", not "layer7". */
static inline int dz_part_is_number(const dz_part *part) { return part->len == 0 && part->number >= 0; }

/* One of the part's words, in lower case, is among `words`, which are separated by spaces. */
int dz_part_has(const dz_part *part, const char *words);

/* The part, in lower case and without its number, contains `text`. */
int dz_part_contains(const dz_part *part, const char *text);

/* The part, in lower case and without its number, is one of `words`. */
int dz_part_is(const dz_part *part, const char *words);

#endif
