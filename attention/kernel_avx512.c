/* Block attention by AVX-512 fused multiply-adds: for f32, and for bf16 that is widened block by block.
 *
 * Both products are micro kernels of up to 12 rows x 32 columns: 24 accumulators in registers, two vectors of the
 * packed tile and one broadcast of the left side a step, so 24 multiply-adds for 14 loads.
 */
#include <immintrin.h>

#include "attention/kernel_strip.h"
#include "base/cpu.h"

enum { LANES = 16 };

/* Inlined into a caller with a constant number of rows, so that the accumulators become registers. */
#define MICRO_KERNEL static inline __attribute__((always_inline)) void

static bool supported(void)
{
    return cpu_features().avx512;
}

static void widen(const bf16 *from, float *to, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(from + i)));
        _mm512_store_si512((void *)(to + i), _mm512_slli_epi32(wide, 16));
    }
}

/* scores [rows][32] = q [dim][rows] . k [dim][32] */
MICRO_KERNEL score_panel(int rows, const float *q, const float *k, int dim, float *scores)
{
    __m512 sum[STRIP_ROWS][2];
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < dim; i++, q += rows, k += STRIP_PANEL) {
        __m512 k_0 = _mm512_load_ps(k), k_1 = _mm512_load_ps(k + LANES);
        for (int r = 0; r < rows; r++) {
            __m512 a = _mm512_set1_ps(q[r]);
            sum[r][0] = _mm512_fmadd_ps(a, k_0, sum[r][0]);
            sum[r][1] = _mm512_fmadd_ps(a, k_1, sum[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(scores + r * STRIP_STRIDE, sum[r][0]);
        _mm512_store_ps(scores + r * STRIP_STRIDE + LANES, sum[r][1]);
    }
}

/* o [rows][16 * vectors] of one panel := o * factor + weights . v over all tiles of the strip */
MICRO_KERNEL add_value_panel(int rows, int vectors, const struct strip *strip, int panel, const float *factor)
{
    __m512 sum[STRIP_ROWS][2];
    float *o = strip->state.o + panel * STRIP_PANEL;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            sum[r][j] = _mm512_mul_ps(_mm512_loadu_ps(o + r * strip->dim + j * LANES), _mm512_set1_ps(factor[r]));
    const float *weights = strip->scores;
    for (int t = 0; t < strip->n_tiles; t++) {
        const float *v = (const float *)(strip->tiles + (size_t)t * strip->tile_bytes);
        v += strip_value_panel(panel, strip->dim);
        for (int key = 0; key < ATTN_KEY_TILE; key++, weights++, v += vectors * LANES) {
            __m512 v_0 = _mm512_load_ps(v), v_1 = _mm512_load_ps(v + (vectors - 1) * LANES);
            for (int r = 0; r < rows; r++) {
                __m512 a = _mm512_set1_ps(weights[r * STRIP_STRIDE]);
                sum[r][0] = _mm512_fmadd_ps(a, v_0, sum[r][0]);
                if (vectors == 2)
                    sum[r][1] = _mm512_fmadd_ps(a, v_1, sum[r][1]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            _mm512_storeu_ps(o + r * strip->dim + j * LANES, sum[r][j]);
}

static float largest_score(const float *scores, int n_tiles)
{
    __m512 high[4];
    for (int i = 0; i < 4; i++)
        high[i] = _mm512_load_ps(scores + i * LANES);
    for (int t = 1; t < n_tiles; t++)
        for (int i = 0; i < 4; i++)
            high[i] = _mm512_max_ps(high[i], _mm512_load_ps(scores + t * ATTN_KEY_TILE + i * LANES));
    return _mm512_reduce_max_ps(_mm512_max_ps(_mm512_max_ps(high[0], high[1]), _mm512_max_ps(high[2], high[3])));
}

struct reference {
    __m512 floor; /* m + STRIP_FLOOR */
    __m512 shift; /* STRIP_SHIFT - m */
};

/* 2^(score - m), or 0 below the floor; 2^r by a polynomial on [-1/2, 1/2], relative error 1.1e-7. */
static inline __m512 weight_of(__m512 score, struct reference reference)
{
    __mmask16 seen = _mm512_cmp_ps_mask(score, reference.floor, _CMP_NLT_UQ);
    __m512 shifted = _mm512_add_ps(score, reference.shift); /* round(score) - m in the lowest bits */
    __m512 r = _mm512_sub_ps(score, _mm512_sub_ps(shifted, reference.shift));
    __m512 power = _mm512_set1_ps(0.00132647273f);
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.00967151299f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.0555073358f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.240222424f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(0.693147004f));
    power = _mm512_fmadd_ps(power, r, _mm512_set1_ps(1.0f));
    __m512i exponent = _mm512_slli_epi32(_mm512_castps_si512(shifted), 23);
    return _mm512_castsi512_ps(_mm512_maskz_add_epi32(seen, _mm512_castps_si512(power), exponent));
}

/* sums [4] = the sum of the lanes of each vector */
static inline void sum_lanes(const __m512 v[STRIP_TILES], float sums[STRIP_TILES])
{
    __m512 low = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
    __m512 high = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
    __m512 four = _mm512_add_ps(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
    __m256 two = _mm256_add_ps(_mm512_castps512_ps256(four), _mm512_extractf32x8_ps(four, 1));
    _mm_storeu_ps(sums, _mm_add_ps(_mm256_castps256_ps128(two), _mm256_extractf128_ps(two, 1)));
}

/* scores := weights of one row with reference m; *l += their sum, tile by tile */
static void weigh_row(float *scores, int n_tiles, float m, float *l)
{
    struct reference reference = {_mm512_set1_ps(m + STRIP_FLOOR), _mm512_set1_ps(STRIP_SHIFT - m)};
    __m512 tile[STRIP_TILES] = {_mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps(), _mm512_setzero_ps()};
    float sums[STRIP_TILES];
    for (int t = 0; t < n_tiles; t++) {
        __m512 w[4];
        for (int i = 0; i < 4; i++, scores += LANES) {
            w[i] = weight_of(_mm512_load_ps(scores), reference);
            _mm512_store_ps(scores, w[i]);
        }
        tile[t] = _mm512_add_ps(_mm512_add_ps(w[0], w[1]), _mm512_add_ps(w[2], w[3]));
    }
    sum_lanes(tile, sums);
    *l = *l + sums[0] + sums[1] + sums[2] + sums[3];
}

/* The scores of a strip become weights, row by row. factor [rows]: for o. */
static void weigh_strip(const struct strip *strip, float *factor)
{
    struct attn_state state = strip->state;
    for (int r = 0; r < strip->rows; r++) {
        factor[r] = 1;
        if (strip_sees(strip, r))
            factor[r] = strip_raise(state.m + r, largest_score(strip->scores + r * STRIP_STRIDE, strip->n_tiles));
    }
    for (int r = 0; r < strip->rows; r++) {
        state.l[r] *= factor[r];
        /* a row that sees nothing here may have no reference yet: any will do, its weights are all 0 */
        float m = strip_sees(strip, r) ? state.m[r] : 0;
        weigh_row(strip->scores + r * STRIP_STRIDE, strip->n_tiles, m, state.l + r);
    }
}

MICRO_KERNEL attend_rows(int rows, const struct strip *strip)
{
    for (int t = 0; t < strip->n_tiles; t++) {
        const float *k = (const float *)(strip->tiles + (size_t)t * strip->tile_bytes);
        float *scores = strip->scores + t * ATTN_KEY_TILE;
        for (int j = 0; j < ATTN_KEY_TILE / STRIP_PANEL; j++) {
            strip_fetch_ahead(strip, t * ATTN_KEY_TILE / STRIP_PANEL + j);
            score_panel(rows, strip->q, k + strip_key_panel(j, strip->dim), strip->dim, scores + j * STRIP_PANEL);
        }
    }
    strip_mask(strip);

    float factor[STRIP_ROWS];
    weigh_strip(strip, factor);
    int panels = strip->dim / STRIP_PANEL;
    for (int j = 0; j < panels; j++)
        add_value_panel(rows, 2, strip, j, factor);
    if (strip->dim % STRIP_PANEL)
        add_value_panel(rows, 1, strip, panels, factor);
}

#define ATTEND(rows)                                                                                               \
    static void attend_##rows(const struct strip *strip)                                                           \
    {                                                                                                              \
        attend_rows(rows, strip);                                                                                  \
    }
ATTEND(1)
ATTEND(2)
ATTEND(3)
ATTEND(4)
ATTEND(5)
ATTEND(6)
ATTEND(7)
ATTEND(8)
ATTEND(9)
ATTEND(10)
ATTEND(11)
ATTEND(12)

static void attend_strip(const struct strip *strip)
{
    static void (*const by_rows[STRIP_ROWS])(const struct strip *) = {attend_1, attend_2,  attend_3,  attend_4,
                                                                      attend_5, attend_6,  attend_7,  attend_8,
                                                                      attend_9, attend_10, attend_11, attend_12};
    by_rows[strip->rows - 1](strip);
}

static void attend_f32(const struct attn_tile *tile, const void *packed, const struct attn_state *state,
                       void *scratch)
{
    strip_walk(&(struct strip_arithmetic){.form = STRIP_F32, .attend = attend_strip}, tile, packed, state, scratch);
}

static void attend_bf16(const struct attn_tile *tile, const void *packed, const struct attn_state *state,
                        void *scratch)
{
    strip_walk(&(struct strip_arithmetic){.form = STRIP_WIDE, .widen = widen, .attend = attend_strip}, tile, packed,
               state, scratch);
}

const struct attn_kernel attn_kernel_avx512_f32 = {
    .name = "avx512-f32",
    .dtype = DTYPE_F32,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_f32,
    .pack = strip_pack_f32,
    .attend = attend_f32,
    .scratch_bytes = strip_scratch_bytes,
};

const struct attn_kernel attn_kernel_avx512_bf16_fma = {
    .name = "avx512-bf16-fma",
    .dtype = DTYPE_BF16,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_bf16,
    .pack = strip_pack_bf16,
    .attend = attend_bf16,
    .scratch_bytes = strip_scratch_bytes,
};
