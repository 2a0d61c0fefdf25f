/* The plain C twin of the fast kernels: the same walk, the same layouts, no instructions of any one machine. */
#include <math.h>
#include <string.h>

#include "attention/kernel_strip.h"

static bool supported(void)
{
    return true;
}

static void widen(const bf16 *from, float *to, size_t n)
{
    for (size_t i = 0; i < n; i++)
        to[i] = bf16_to_f32(from[i]);
}

/* scores [rows][64 keys of tile t] = q.k */
static void score_tile(const struct strip *strip, int t)
{
    const float *tile = (const float *)(strip->tiles + (size_t)t * strip->tile_bytes), *q = strip->q;
    for (int j = 0; j < ATTN_KEY_TILE / STRIP_PANEL; j++) {
        const float *k = tile + strip_key_panel(j, strip->dim);
        for (int r = 0; r < strip->rows; r++) {
            float sum[STRIP_PANEL] = {0};
            for (int i = 0; i < strip->dim; i++)
                for (int key = 0; key < STRIP_PANEL; key++)
                    sum[key] += q[i * strip->rows + r] * k[i * STRIP_PANEL + key];
            memcpy(strip->scores + (size_t)r * STRIP_STRIDE + t * ATTN_KEY_TILE + j * STRIP_PANEL, sum, sizeof sum);
        }
    }
}

static float weight_of(float score, float m)
{
    if (score < m + STRIP_FLOOR)
        return 0;
    if (!isfinite(score))
        return NAN;
    float whole = score + STRIP_SHIFT - STRIP_SHIFT;
    return exp2f(score - whole) * strip_power((int)(whole - m));
}

/* scores of row r := weights; m and l move on; returns the factor for o. */
static float weigh_row(const struct strip *strip, int r)
{
    float *scores = strip->scores + (size_t)r * STRIP_STRIDE, *m = strip->state.m + r, *l = strip->state.l + r;
    float largest = -INFINITY;
    for (int i = 0; i < strip->n_tiles * ATTN_KEY_TILE; i++)
        largest = fmaxf(largest, scores[i]);
    if (!strip_sees(strip, r)) {
        memset(scores, 0, (size_t)strip->n_tiles * ATTN_KEY_TILE * sizeof *scores);
        return 1.0f;
    }
    float factor = strip_raise(m, largest);
    *l *= factor;
    for (int t = 0; t < strip->n_tiles; t++) {
        float sum = 0;
        for (int i = t * ATTN_KEY_TILE; i < (t + 1) * ATTN_KEY_TILE; i++) {
            scores[i] = weight_of(scores[i], *m);
            sum += scores[i];
        }
        *l += sum;
    }
    return factor;
}

/* o [dim] of one row := o * factor + weights . v */
static void add_values(const struct strip *strip, int r, float factor)
{
    for (int first = 0, j = 0; first < strip->dim; first += STRIP_PANEL, j++) {
        int width = (int)i64_min(STRIP_PANEL, strip->dim - first);
        float *o = strip->state.o + (size_t)r * (size_t)strip->dim + first;
        for (int d = 0; d < width; d++)
            o[d] *= factor;
        for (int i = 0; i < strip->n_tiles * ATTN_KEY_TILE; i++) {
            const float *tile = (const float *)(strip->tiles + (size_t)(i / ATTN_KEY_TILE) * strip->tile_bytes);
            const float *v = tile + strip_value_panel(j, strip->dim) + i % ATTN_KEY_TILE * width;
            float weight = strip->scores[(size_t)r * STRIP_STRIDE + (size_t)i];
            for (int d = 0; d < width; d++)
                o[d] += weight * v[d];
        }
    }
}

static void score_strip(const struct strip *strip)
{
    for (int t = 0; t < strip->n_tiles; t++)
        score_tile(strip, t);
}

static void attend_strip(const struct strip *strip)
{
    for (int r = 0; r < strip->rows; r++)
        add_values(strip, r, weigh_row(strip, r));
}

static void receive_tile(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums)
{
    for (int r = rows->first; r < strip->rows; r += rows->step) {
        const float *scores = strip->scores + (size_t)r * STRIP_STRIDE + key;
        for (int i = 0; i < ATTN_KEY_TILE; i++) {
            const float weight = weight_of(scores[i] - rows->lse[r], 0);
            sums[i] += isfinite(weight) ? (int64_t)(weight * STRIP_UNITS) : 0;
        }
    }
}

static const struct strip_arithmetic of_f32 = {
    .form = STRIP_F32, .score = score_strip, .attend = attend_strip, .receive = receive_tile};
static const struct strip_arithmetic of_bf16 = {
    .form = STRIP_WIDE, .widen = widen, .score = score_strip, .attend = attend_strip, .receive = receive_tile};

const struct attn_kernel attn_kernel_c_f32 = {
    .name = "c-f32",
    .dtype = DTYPE_F32,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_f32,
    .pack = strip_pack_f32,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_f32,
};

const struct attn_kernel attn_kernel_c_bf16 = {
    .name = "c-bf16",
    .dtype = DTYPE_BF16,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_bf16,
    .pack = strip_pack_bf16,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_bf16,
};
