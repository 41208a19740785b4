/* Of an embedding or head of tokens, how much each row has moved: noise in proportion to it harms least (METHODS.md "Embeddings and heads
 * of tokens"). */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "codec/prediction.h"
#include "compress/shapes.h"
#include "compress/tile_reader.h"
#include "numeric/rotate.h"
#include "numeric/trellis.h"

#define MOST 16                 /* of a code: rows that moved least, or not at all, have a factor of 16 over the middle one's */
#define MOST_NOISE 1.05         /* of what is allowed: where blocks would need more than a bit an element, there are no predictions */
#define WITHIN 1.000001         /* of the limits: rounding */
#define ROWS ((size_t)64)       /* of a tile, that show whether they have a direction in common */
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

/* Of a vocabulary, those that the base has too; 0 of another tensor, and of one whose sparsity is given: it has no factors. */
static size_t rows_of(const dz_plan *plan, const dz_tensor_pair *pair) {
    return pair->vocabulary && isnan(pair->sparsity) ? (size_t)(pair->tiles.common / columns_of(plan, pair)) : 0;
}

/* By row: energy of the delta; of chained tensors also of the step from the parent's own tensor, and the product of both. */
typedef struct row_energies {
    double *delta, *both, *step;
} row_energies;

/* Adds the products of a and b to lanes, in the order of the kernels' sums. */
static void add_products(double *restrict lanes, const float *restrict a, const float *restrict b, size_t count) {
    for (size_t i = 0; i < count; i++) lanes[i % DZ_LANES] += (double)a[i] * (double)b[i];
}

/* Whether a few of the tile's rows have a direction in common. Its bytes are still those that were read last. */
static int rows_agree(const dz_plan *plan, const dz_tile *t, dz_error *err) {
    uint64_t columns = columns_of(plan, t->pair), lead = (columns - t->first % columns) % columns;
    size_t nrows = t->count > lead ? (size_t)((t->count - lead) / columns) : 0, n = nrows < ROWS ? nrows : ROWS;
    if (nrows < DZ_PREDICTION_ROWS_MIN) return 0;
    float *rows = dz_alloc_raw((n + 2) * (size_t)columns, sizeof *rows, err);
    if (!rows) return 0;
    for (size_t r = 0; r < n; r++)
        dz_tile_delta(t, (size_t)(lead + (nrows - 1) * r / (n - 1) * columns), (size_t)columns, rows + r * columns);
    int agree = dz_prediction_likely(rows, n, (size_t)columns, rows + n * columns);
    free(rows);
    return agree;
}

/* Adds the tile's part to the energies of its rows: of a row that lies in two tiles, each part is one sum. Counts the tile if a few of its
 * rows have a direction in common. */
static dz_rc add_energies(dz_tile_reader *reader, const dz_plan *plan, const token_tile *at, int chained, const row_energies *to,
                          uint64_t *agreeing, dz_error *err) {
    float delta[PIECE], step[PIECE];
    dz_tile t;
    if (dz_tile_read(reader, at->item, &t, err) != DZ_OK || (chained && dz_tile_read_parent(reader, &t, err) != DZ_OK)) return err->rc;
    uint64_t columns = columns_of(plan, t.pair), row = t.first / columns, left = columns - t.first % columns;
    double of_delta[DZ_LANES] = {0}, of_both[DZ_LANES] = {0}, of_step[DZ_LANES] = {0};
    for (size_t done = 0, len; done < t.count; done += len) {
        len = t.count - done < PIECE ? (size_t)t.count - done : PIECE;
        len = len < left ? len : (size_t)left;
        t.kept = 0;
        dz_tile_delta(&t, done, len, delta);
        dz_kernels()->energy(of_delta, delta, len);
        if (chained) {
            t.kept = 1; /* without the parent's model: the delta once more */
            dz_tile_delta(&t, done, len, step);
            add_products(of_both, delta, step, len);
            dz_kernels()->energy(of_step, step, len);
        }
        left -= len;
        if (left && done + len < t.count) continue;
        to->delta[row] += dz_lanes_total(of_delta);
        if (chained) to->both[row] += dz_lanes_total(of_both);
        if (chained) to->step[row] += dz_lanes_total(of_step);
        memset(of_delta, 0, sizeof of_delta);
        memset(of_both, 0, sizeof of_both);
        memset(of_step, 0, sizeof of_step);
        left = columns;
        row++;
    }
    if (!chained) *agreeing += (uint64_t)rows_agree(plan, &t, err);
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

/* What they make of the noise, which is white in each rotated block after the factors: the sum over blocks of the energy there, times the
 * mean of 1 / factor^2. */
static double noise_of(const double *energy, const int8_t *code, size_t n, uint64_t columns) {
    double noise = 0;
    for (size_t i = 0, next; i < n; i = next) {
        double scaled = 0, inverse = 0;
        uint64_t block = i * columns / DZ_ROTATE_BLOCK;
        for (next = i; next < n && next * columns / DZ_ROTATE_BLOCK == block; next++) {
            double f = (double)dz_channel_factor(code[next]);
            scaled += energy[next] * f * f;
            inverse += 1 / (f * f);
        }
        noise += scaled * inverse / (double)(next - i);
    }
    return noise;
}

static double total(const double *energy, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += energy[i];
    return sum;
}

/* The tiles of vocabularies among this rank's items. Of vocabularies that it has tiles of, only these need codes here, the sum of the rows;
 * of all, the most rows. */
static size_t gather(const dz_context *ctx, token_tile *tiles, size_t *rows, size_t *most) {
    const dz_plan *plan = ctx->plan;
    size_t n = 0;
    *rows = *most = 0;
    for (size_t l = 0; l < plan->nlossy; l++) {
        size_t own = rows_of(plan, dz_context_lossy_pair(ctx, l));
        *most = own > *most ? own : *most;
    }
    for (size_t i = 0; i < dz_context_nitems(ctx) && *most; i++) {
        size_t item = dz_context_item(ctx, i);
        const dz_work_item *u = &plan->units[item];
        if (dz_item_is_lossy(plan, u) && rows_of(plan, &plan->pairs[u->pair]))
            tiles[n++] = (token_tile){.lossy = plan->pairs[u->pair].lossy, .item = item};
    }
    if (n) qsort(tiles, n, sizeof *tiles, by_tensor);
    for (size_t i = 0; i < n; i++) {
        if (i == 0 || tiles[i].lossy != tiles[i - 1].lossy) *rows += rows_of(plan, dz_context_lossy_pair(ctx, (size_t)tiles[i].lossy));
    }
    return n;
}

/* Of a tensor whose rows have these energies. `code` is where its codes are. */
static void make_shape(const row_energies *energy, size_t rows, uint64_t columns, int chained, int8_t *code, dz_shape *shape) {
    if (!make_codes(energy->delta, rows, code)) return;
    shape->channels = (dz_channels){.code = code, .count = (uint32_t)rows, .stride = columns};
    shape->noise[0] = noise_of(energy->delta, code, rows, columns);
    shape->noise[1] = chained ? noise_of(energy->both, code, rows, columns) : 0;
    shape->noise[2] = chained ? noise_of(energy->step, code, rows, columns) : 0;
    shape->spread = shape->share = shape->noise[0] / total(energy->delta, rows);
    shape->bytes = (double)dz_channels_bytes(&shape->channels);
    shape->factors = dz_channels_range(&shape->channels);
}

/* What a tile comes to with predictions, at shape->predicted. */
typedef struct tile_forecast {
    double noise; /* energy of it, without factors */
    double bits;  /* of the messages */
    double bytes; /* of the prediction */
} tile_forecast;

static dz_rc predict_tile(dz_tile_reader *reader, const token_tile *at, const dz_shape *shape, dz_buf *room, tile_forecast *out,
                          dz_error *err) {
    dz_tile t;
    dz_lowrank found;
    dz_buf coded = {0};
    room->len = 0;
    if (dz_tile_read(reader, at->item, &t, err) != DZ_OK || dz_buf_reserve(room, (size_t)t.count * sizeof(float), err) != DZ_OK)
        return err->rc;
    float *delta = (float *)(void *)room->data;
    uint64_t columns = shape->channels.stride;
    size_t count = (size_t)t.count;
    dz_tile_delta(&t, 0, count, delta);
    dz_channels_apply(delta, count, t.first, &shape->channels, 0);
    if (dz_prediction_find(&found, delta, count, columns, t.first % columns, shape->predicted, err) != DZ_OK) return err->rc;
    if (found.rank) {
        dz_prediction_add(delta, 0, count, &found, -1);
        dz_lowrank_put(&coded, &found, err);
    }
    out->bytes += (double)coded.len;
    for (size_t b = 0; b < dz_rotate_blocks(count); b++) {
        double energy[DZ_LANES] = {0}, inverse = 0, left;
        size_t first = dz_rotate_first(count, b), n = dz_rotate_length(count, b);
        dz_kernels()->energy(energy, delta + first, n);
        for (size_t i = 0, run; i < n; i += run) {
            uint64_t element = t.first + first + i;
            run = n - i < columns - element % columns ? n - i : (size_t)(columns - element % columns);
            double f = (double)dz_channel_factor(shape->channels.code[element / columns]);
            inverse += (double)run / (f * f);
        }
        out->bits += (double)dz_trellis_bits_for(n, dz_lanes_total(energy), shape->predicted, &left);
        out->noise += left * inverse / (double)n;
    }
    dz_buf_free(&coded);
    dz_lowrank_free(&found);
    return err->rc;
}

/* Collective. The sums over the tensor's tiles, of which `n` are here. */
static dz_rc predict_tiles(dz_context *ctx, dz_tile_reader *reader, const dz_tensor_pair *pair, const token_tile *tiles, size_t n,
                           const dz_shape *shape, tile_forecast *sum, dz_error *err) {
    dz_buf room = {0};
    size_t ntiles = pair->tiles.ncommon, each = sizeof *sum / sizeof(double);
    tile_forecast *of = dz_alloc(ntiles, sizeof *of, err);
    for (size_t i = 0; i < n && err->rc == DZ_OK; i++)
        predict_tile(reader, &tiles[i], shape, &room, &of[ctx->plan->units[tiles[i].item].tile], err);
    dz_buf_free(&room);
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    if (rc == DZ_OK) dz_sum_f64(ctx->world, &of->noise, each * ntiles); /* each is of one rank */
    *sum = (tile_forecast){0};
    for (size_t i = 0; rc == DZ_OK && i < ntiles; i++) {
        sum->noise += of[i].noise;
        sum->bits += of[i].bits;
        sum->bytes += of[i].bytes;
    }
    free(of);
    return rc;
}

double dz_vocabulary_noise(const dz_recipe *recipe, const dz_tensor_pair *pair, const dz_tensor_stats *stats) {
    if (!isnan(recipe->gain) || pair->factor != 1) return (double)INFINITY;
    dz_noise_limits limits = dz_recipe_limits(recipe);
    double by_base = stats->delta_energy > 0 ? limits.to_base * stats->base_energy / stats->delta_energy : limits.to_base;
    return DZ_VOCABULARY_SHARE * fmin(limits.to_delta, by_base);
}

/* Collective. Whether a tensor's tiles are coded with predictions, and what comes of it. The noise is then the same for all elements, with
 * their factors: blocks whose rows are hard to predict get more bits, not more noise. Where they would need more bits than messages have,
 * the whole share of the limits is tried, and a little less than that. `energy`: of the rows' deltas. */
static dz_rc predict(dz_context *ctx, dz_tile_reader *reader, const dz_tensor_pair *pair, const dz_tensor_stats *stats,
                     const token_tile *tiles, size_t n, dz_shape *shape, double energy, dz_error *err) {
    double allowed = dz_vocabulary_noise(dz_zoo_recipe(&ctx->zoo, pair->task), pair, stats) * energy, inverse = 0;
    if (!isfinite(allowed)) return DZ_OK;
    for (uint32_t i = 0; i < shape->channels.count; i++) {
        double f = (double)dz_channel_factor(shape->channels.code[i]);
        inverse += (double)shape->channels.stride / (f * f);
    }
    static const double shares[] = {DZ_PREDICTED_SHARE, 1, 1 / MOST_NOISE};
    for (size_t k = 0; k < sizeof shares / sizeof *shares; k++) {
        tile_forecast sum;
        shape->predicted = dz_significant(shares[k] * allowed / inverse, 30);
        if (predict_tiles(ctx, reader, pair, tiles, n, shape, &sum, err) != DZ_OK) return err->rc;
        if (sum.bytes == 0 || !(sum.noise <= WITHIN * allowed)) break; /* with more noise elsewhere it will not be less */
        if (!(sum.noise <= fmin(MOST_NOISE * shares[k], WITHIN) * allowed)) continue;
        shape->noise[0] = sum.noise;
        shape->spread = shape->share = sum.noise / energy;
        shape->bytes += sum.bytes;
        shape->rate = fmax(DZ_TRELLIS_RATE_LEAST, sum.bits / (double)pair->tiles.common);
        return DZ_OK;
    }
    shape->predicted = 0;
    return DZ_OK;
}

dz_rc dz_token_rows_make(dz_context *ctx, const dz_stats *stats, dz_shapes *out, dz_error *err) {
    const dz_plan *plan = ctx->plan;
    dz_tile_reader reader;
    size_t rows = 0, most = 0, at = 0, done = 0, n = 0, sums = ctx->chains.open ? 3 : 1;
    token_tile *tiles = dz_alloc(dz_context_nitems(ctx), sizeof *tiles, err);
    double *room = NULL;
    int8_t *codes = NULL;
    if (tiles) n = gather(ctx, tiles, &rows, &most);
    dz_tile_reader_init(&reader, &ctx->zoo, plan, &ctx->chains);
    if (most) {
        room = dz_alloc(sums * most, sizeof *room, err);
        codes = dz_alloc(most, sizeof *codes, err);
        out->tokens = dz_alloc(plan->nlossy, sizeof *out->tokens, err);
        out->token_codes = dz_alloc(rows, sizeof *out->token_codes, err);
    }
    dz_rc rc = dz_sync_error(ctx->world, err->rc, err);
    for (size_t l = 0; l < plan->nlossy && rc == DZ_OK && most; l++) {
        const dz_tensor_pair *pair = dz_context_lossy_pair(ctx, l);
        size_t own = rows_of(plan, pair);
        if (own == 0) continue;
        int chained = dz_chains_row(&ctx->chains, plan->lossy[l]) >= 0, here = at < n && tiles[at].lossy == (int64_t)l;
        row_energies energy = {.delta = room, .both = room + (chained ? own : 0), .step = room + (chained ? 2 * own : 0)};
        memset(room, 0, (chained ? 3 : 1) * own * sizeof *room);
        size_t begin = at;
        uint64_t agreeing = 0;
        for (; at < n && tiles[at].lossy == (int64_t)l && err->rc == DZ_OK; at++)
            add_energies(&reader, plan, &tiles[at], chained, &energy, &agreeing, err);
        if ((rc = dz_sync_error(ctx->world, err->rc, err)) != DZ_OK) break;
        dz_sum_u64(ctx->world, &agreeing, 1);
        dz_sum_f64(ctx->world, room, (chained ? 3 : 1) * own); /* a row lies in two tiles at most: the sum of two numbers has no order */
        dz_shape *shape = &out->tokens[l];
        make_shape(&energy, own, columns_of(plan, pair), chained, codes, shape);
        if (agreeing && shape->channels.count &&
            (rc = predict(ctx, &reader, pair, &stats->tensors[l], tiles + begin, at - begin, shape, total(room, own), err)) != DZ_OK)
            break;
        shape->channels.code = NULL;
        if (!here || shape->channels.count == 0) continue;
        shape->channels.code = memcpy(out->token_codes + done, codes, own);
        done += own;
    }
    ctx->bytes_read += reader.bytes_read;
    dz_tile_reader_free(&reader);
    free(tiles);
    free(room);
    free(codes);
    return rc;
}
