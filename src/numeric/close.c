#include "numeric/close.h"

#include <string.h>

void dz_close_table_make(dz_close_table *t, unsigned first, unsigned nclasses, unsigned mantissa, const uint8_t *low_bits,
                         const uint16_t (*frequency)[DZ_CLOSE_NUMBERS]) {
    memset(t, 0, sizeof *t);
    t->first = first;
    t->nclasses = nclasses;
    t->mantissa = mantissa;
    for (unsigned k = 0; k <= nclasses; k++) {
        int far = k == nclasses;
        unsigned most = DZ_CLOSE_ESCAPE, sum = 0, starts[DZ_CLOSE_NUMBERS];
        t->low_bits[k] = far ? 0 : low_bits[k];
        t->scale[k] = (uint16_t)((256U >> t->low_bits[k]) - 1);
        t->low_mask[k] = (uint16_t)((1U << t->low_bits[k]) - 1);
        for (unsigned q = 0; q < DZ_CLOSE_NUMBERS; q++) {
            unsigned f = far ? (q == DZ_CLOSE_ESCAPE ? (1U << DZ_CLOSE_LOG) : 0) : frequency[k][q], at = DZ_CLOSE_NUMBERS * k + q;
            starts[q] = sum;
            t->frequency[at] = (uint16_t)f;
            t->start[at] = (uint16_t)sum;
            t->code[at] = (dz_close_code){.inverse = f ? (((uint64_t)1 << DZ_CLOSE_INVERSE) + f - 1) / f : 0,
                                          .limit = f << (31 - DZ_CLOSE_LOG),
                                          .others = (uint16_t)((1U << DZ_CLOSE_LOG) - f),
                                          .start = (uint16_t)sum};
            t->both[at] = f | sum << 16;
            sum += f;
            if (f && q < DZ_CLOSE_ESCAPE && most == DZ_CLOSE_ESCAPE) t->least[k] = (uint16_t)q;
            if (f && q < DZ_CLOSE_ESCAPE) most = q;
        }
        t->span[k] = (uint16_t)(most - t->least[k]);
        for (unsigned level = 0, from = 0; level < 4; from = 32U << level++) {
            for (unsigned i = 0; i < 1U << level; i++) t->tree[from + (k << level) + i] = (uint16_t)starts[(2 * i + 1) * (8U >> level)];
        }
    }
    for (unsigned lanes = 0; lanes < 256; lanes++) {
        for (unsigned k = 0, n = 0; k < 8; k++) {
            if (!(lanes >> k & 1)) continue;
            t->together[lanes] |= (uint64_t)k << 8 * n;
            t->apart[lanes] |= (uint64_t)n++ << 8 * k;
        }
    }
}
