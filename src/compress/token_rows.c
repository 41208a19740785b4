/* Of an embedding or head of tokens, how much each row has moved: noise in proportion to it harms least (METHODS.md "Embeddings and heads
 * of tokens"). */
#include <math.h>
#include <stdlib.h>

#include "compress/shapes.h"
#include "compress/tile_reader.h"
#include "numeric/rotate.h"

#define MOST 16                 /* of a code: rows that moved least, or not at all, have a factor of 16 over the middle one's */
#define PIECE ((size_t)1 << 14) /* elements at a time */

/* A tile of a vocabulary that this rank has. */
typedef struct token_tile {
    int64_t lossy;
    size_t item;
} token_tile;

static int by_tensor(const void *x, const void *y) {
    const token_tile *a = x, *b = y;
    if (a->lossy != b->lossy) return a->lossy < b->lossy ? -1 : 1;
    return a->item < b->item ? -1 : a->item > b->item;
}

static uint64_t columns_of(const dz_plan *plan, const dz_tensor_pair *pair) { return dz_pair_tensor(plan, pair)->shape[1]; }

/* Adds the tile's part to the energies of its rows: of a row that lies in two tiles, each part is one sum. */
static dz_rc add_energies(dz_tile_reader *reader, const dz_plan *plan, const token_tile *at, double *energy, dz_error *err) {
    float delta[PIECE];
    dz_tile t;
    if (dz_tile_read(reader, at->item, &t, err) != DZ_OK) return err->rc;
    uint64_t columns = columns_of(plan, t.pair), row = t.first / columns, column = t.first % columns;
    double sum = 0;
    for (size_t done = 0; done < t.count; done += PIECE) {
        size_t len = t.count - done < PIECE ? (size_t)t.count - done : PIECE;
        dz_tile_delta(&t, done, len, delta);
        for (size_t i = 0; i < len; i++) {
            sum += (double)delta[i] * (double)delta[i];
            if (++column < columns) continue;
            energy[row++] += sum;
            sum = 0;
            column = 0;
        }
    }
    if (column) energy[row] += sum;
    return err->rc;
}

/* Codes of factors in proportion to 1 / sqrt(energy), about 1 in the geometric mean of the rows that moved; 0 where none did. */
static int make_codes(const double *energy, size_t n, int8_t *code) {
    double mean = 0, moved = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(energy[i])) return 0;
        if (energy[i] > 0) mean += log2(energy[i]), moved += 1;
    }
    if (moved == 0) return 0;
    mean /= moved;
    for (size_t i = 0; i < n; i++) {
        double wanted = energy[i] > 0 ? rint(2 * dz_significant(mean - log2(energy[i]), 30)) : MOST;
        code[i] = (int8_t)fmax(-MOST, fmin(MOST, wanted));
    }
    return 1;
}

/* What they do to the noise, which is white in each rotated block after the factors: the sum over blocks of the energy there, times the
 * mean of 1 / factor^2. */
static double spread_of(const double *energy, const int8_t *code, size_t n, uint64_t columns) {
    double all = 0, noise = 0;
    for (size_t i = 0, next; i < n; i = next) {
        double scaled = 0, inverse = 0;
        uint64_t block = i * columns / DZ_ROTATE_BLOCK;
        for (next = i; next < n && next * columns / DZ_ROTATE_BLOCK == block; next++) {
            double f = (double)dz_channel_factor(code[next]);
            scaled += energy[next] * f * f;
            inverse += 1 / (f * f);
            all += energy[next];
        }
        noise += scaled * inverse / (double)(next - i);
    }
    return noise / all;
}

/* The tiles of vocabularies among this rank's items; how many rows all vocabularies have, and the largest. */
static size_t gather(const dz_context *ctx, token_tile *tiles, size_t *rows, size_t *most) {
    const dz_plan *plan = ctx->plan;
    size_t n = 0;
    *rows = *most = 0;
    for (size_t l = 0; l < plan->nlossy; l++) {
        const dz_tensor_pair *pair = dz_context_lossy_pair(ctx, l);
        if (!pair->vocabulary) continue;
        size_t own = (size_t)(pair->tiles.common / columns_of(plan, pair));
        *rows += own;
        *most = own > *most ? own : *most;
    }
    for (size_t i = 0; i < dz_context_nitems(ctx) && *rows; i++) {
        size_t item = dz_context_item(ctx, i);
        const dz_work_item *u = &plan->units[item];
        if (dz_item_is_lossy(plan, u) && plan->pairs[u->pair].vocabulary)
            tiles[n++] = (token_tile){.lossy = plan->pairs[u->pair].lossy, .item = item};
    }
    if (n) qsort(tiles, n, sizeof *tiles, by_tensor);
    return n;
}

dz_rc dz_token_rows_make(dz_context *ctx, dz_shapes *out, dz_error *err) {
    const dz_plan *plan = ctx->plan;
    dz_tile_reader reader;
    size_t rows = 0, most = 0, at = 0, done = 0, n = 0;
    token_tile *tiles = dz_alloc(dz_context_nitems(ctx), sizeof *tiles, err);
    double *energy = NULL;
    if (tiles) n = gather(ctx, tiles, &rows, &most);
    dz_tile_reader_init(&reader, &ctx->zoo, plan, &ctx->chains);
    if (rows) {
        energy = dz_alloc(most, sizeof *energy, err);
        out->tokens = dz_alloc(plan->nlossy, sizeof *out->tokens, err);
        out->token_codes = dz_alloc(rows, sizeof *out->token_codes, err);
    }
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    for (size_t l = 0; l < plan->nlossy && rc == DZ_OK && rows; l++) {
        const dz_tensor_pair *pair = dz_context_lossy_pair(ctx, l);
        if (!pair->vocabulary) continue;
        uint64_t columns = columns_of(plan, pair);
        size_t own = (size_t)(pair->tiles.common / columns);
        for (size_t i = 0; i < own; i++) energy[i] = 0;
        for (; at < n && tiles[at].lossy == (int64_t)l && err->rc == DZ_OK; at++) add_energies(&reader, plan, &tiles[at], energy, err);
        if ((rc = dz_sync_error(ctx->world, err->rc, err)) != DZ_OK) break;
        dz_sum_f64(ctx->world, energy, own); /* a row lies in two tiles at most: the sum of two numbers has no order */
        dz_shape *shape = &out->tokens[l];
        if (make_codes(energy, own, out->token_codes + done)) {
            shape->channels = (dz_channels){.code = out->token_codes + done, .count = (uint32_t)own, .stride = columns};
            shape->spread = shape->share = spread_of(energy, shape->channels.code, own, columns);
            shape->bytes = (double)dz_channels_bytes(&shape->channels);
            shape->factors = dz_channels_range(&shape->channels);
        }
        done += own;
    }
    ctx->bytes_read += reader.bytes_read;
    dz_tile_reader_free(&reader);
    free(tiles);
    free(energy);
    return rc;
}
