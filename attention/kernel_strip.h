/* What the CPU kernels share: the walk over blocks of keys and groups of rows, and the packed layouts.
 *
 * attn_attend() and attn_observe() walk over a run with the arithmetic of the kernel's instruction set: they cut
 * the run at absolute multiples of STRIP_KEYS and the rows in groups of at most STRIP_ROWS, skip what no row of a
 * group sees, and hand the rest to the arithmetic as strips: one group of rows against up to STRIP_TILES packed
 * tiles. The scores of a strip stay in the first-level cache, the tiles of a block in the second.
 *
 * Two rules make the answer for a row the same bits whatever the other rows, the strips and the calls were:
 *   - m is an even whole number, so every rescaling is by a power of two and exact, and the weight of a key is
 *     2^(s - n) * 2^(n - m) with n = s rounded, to even on a tie, so that its digits do not depend on m;
 *   - o is summed key by key in rising order, and l tile by tile in rising order, the 64 keys of a tile in one
 *     fixed order. A key that a row does not see adds an exact zero.
 *
 * Packed tile, in elements of the kernel's dtype; keys and dimensions come in panels of STRIP_PANEL columns, so
 * that what one micro kernel reads lies together (the last panel of values is narrower when dim % 32 == 16):
 *   k [ATTN_KEY_TILE / 32][dim][32 keys]     v [dim / 32][ATTN_KEY_TILE][32 dimensions]
 * and for the bf16 dot product, which takes two neighbours of the summed dimension at once:
 *   k [ATTN_KEY_TILE / 32][dim / 2][32 keys][2]     v [dim / 32][ATTN_KEY_TILE / 2][32 dimensions][2 keys]
 */
#ifndef LONGHAUL_ATTENTION_KERNEL_STRIP_H
#define LONGHAUL_ATTENTION_KERNEL_STRIP_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "attention/kernel.h"

enum {
    STRIP_ROWS = 12,
    STRIP_TILES = 4,
    STRIP_KEYS = STRIP_TILES * ATTN_KEY_TILE,
    STRIP_STRIDE =
        STRIP_KEYS + 16, /* floats between rows of scores: no power of two, which would share cache sets */
    STRIP_PANEL = 32
};

/* Weights below 2^STRIP_FLOOR of the row's reference are zero: far below fp32's resolution, and above where
 * products would become denormal and slow. */
#define STRIP_FLOOR (-100.0f)

/* 1.5 * 2^23: added to a smaller number it leaves the number rounded to a whole one in the lowest bits. */
#define STRIP_SHIFT 12582912.0f

struct strip {
    const void *q;                 /* [steps][rows] words of 4 bytes: an f32, or two neighbouring bf16 */
    const unsigned char *tiles;    /* [n_tiles] */
    size_t tile_bytes;             /* from one tile to the next */
    const struct attn_span *spans; /* [rows] */
    struct attn_state state;       /* [rows], where they attend */
    float *scores;                 /* [STRIP_ROWS][STRIP_STRIDE]: working memory, and one as large behind it */
    const unsigned char *ahead; /* [ahead_bytes]: this strip's share of the next block, to be fetched meanwhile */
    size_t ahead_bytes;         /* a part for each panel of scores: strip_fetch_ahead() */
    int64_t first_key;          /* of the strip, in the run */
    int n_tiles, rows, dim;
};

enum strip_form {
    STRIP_F32,  /* f32 in memory and arithmetic */
    STRIP_WIDE, /* bf16 in memory, widened to f32 tiles block by block */
    STRIP_PAIRS /* bf16 in memory, multiplied in pairs */
};

/* Rows first, first + step ... of a strip, which add to the same sums; lse [strip->rows], in base 2. */
struct strip_class {
    int first, step;
    const float *lse;
};

/* What the instruction set does; between the two steps of either kind scores outside of the spans become -inf. */
struct strip_arithmetic {
    enum strip_form form;
    void (*widen)(const bf16 *from, float *to, size_t n); /* STRIP_WIDE; n a multiple of 16, `to` aligned */
    void (*score)(const struct strip *strip);             /* scores := q . k */
    void (*attend)(const struct strip *strip);            /* the state moves on by the scores */

    /* sums [ATTN_KEY_TILE] += what the keys of a tile, the first of them number `key` of the strip, get from these
     * rows by the scores, in whole units. */
    void (*receive)(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums);
};

/* Units of ATTN_UNIT in a weight. */
#define STRIP_UNITS ((float)(1 / ATTN_UNIT))

/* Prefetch into the second-level cache this panel's share of the next block: a few lines at a time, behind the
 * arithmetic, cost nothing. */
static inline void strip_fetch_ahead(const struct strip *strip, int panel)
{
    size_t part = strip->ahead_bytes / (STRIP_KEYS / STRIP_PANEL);
    for (size_t i = 0; i < part; i += ATTN_ALIGN)
        __builtin_prefetch(strip->ahead + (size_t)panel * part + i, 0, 2);
}

/* Whether row r of the strip sees any of its keys. */
static inline bool strip_sees(const struct strip *strip, int r)
{
    int64_t first = i64_max(strip->spans[r].first, strip->first_key);
    return first < i64_min(strip->spans[r].end, strip->first_key + (int64_t)strip->n_tiles * ATTN_KEY_TILE);
}

/* 2^exponent, for exponents of normal numbers. */
static inline float strip_power(int exponent)
{
    uint32_t bits = (uint32_t)(127 + exponent) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* Raise the reference *m of a row to an even number not below `largest`, the largest score of a strip; returns
 * the factor for its l and o, a power of two or 0. */
static inline float strip_raise(float *m, float largest)
{
    float before = *m;
    *m = fmaxf(before, 2 * ceilf(largest / 2));
    return before - *m >= STRIP_FLOOR ? strip_power((int)(before - *m)) : 0;
}

/* The kernel functions that do not depend on the instruction set. */
size_t strip_tile_bytes_f32(int dim);
size_t strip_tile_bytes_bf16(int dim);
size_t strip_scratch_bytes(int dim);
void strip_pack_f32(void *tile, const float *k, const void *v, int n, int dim);
void strip_pack_bf16(void *tile, const float *k, const void *v, int n, int dim);
void strip_pack_values(void *tile, const void *v, int n, int dim, size_t element); /* of the two above */

/* Where panel `j` of a tile's keys or values begins, in elements from the start of the tile. */
static inline size_t strip_key_panel(int j, int dim)
{
    return (size_t)j * STRIP_PANEL * (size_t)dim;
}

static inline size_t strip_value_panel(int j, int dim)
{
    return (size_t)ATTN_KEY_TILE * ((size_t)dim + (size_t)j * STRIP_PANEL);
}

/* The kernels of this build; one file each instruction set. */
extern const struct attn_kernel attn_kernel_c_f32, attn_kernel_c_bf16;
extern const struct attn_kernel attn_kernel_avx2_f32, attn_kernel_avx2_bf16;
extern const struct attn_kernel attn_kernel_avx512_f32, attn_kernel_avx512_bf16_fma;
extern const struct attn_kernel attn_kernel_avx512_bf16;

#endif
