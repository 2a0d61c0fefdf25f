/* Block attention by AVX2 fused multiply-adds: for f32, and for bf16 that is widened block by block.
 *
 * Both products are micro kernels of up to 6 rows x 16 columns: 12 accumulators in registers, two vectors of the
 * packed tile and one broadcast of the left side a step. A strip's rows are taken in two halves.
 */
#include <immintrin.h>

#include "attention/kernel_strip.h"
#include "base/cpu.h"

enum { LANES = 8, COLUMNS = 2 * LANES, ROWS = STRIP_ROWS / 2, VECTORS_OF_TILE = ATTN_KEY_TILE / LANES };

/* Inlined into a caller with a constant number of rows, so that the accumulators become registers. */
#define MICRO_KERNEL static inline __attribute__((always_inline)) void

static bool supported(void)
{
    return cpu_features().avx2_fma;
}

static void widen(const bf16 *from, float *to, size_t n)
{
    for (size_t i = 0; i < n; i += LANES) {
        __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(from + i)));
        _mm256_store_si256((__m256i *)(to + i), _mm256_slli_epi32(wide, 16));
    }
}

/* scores [rows][16] = q [dim][q_stride] . k [dim][32] */
MICRO_KERNEL score_columns(int rows, const struct strip *strip, const float *q, const float *k, float *scores)
{
    __m256 sum[ROWS][2];
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm256_setzero_ps();
    for (int i = 0; i < strip->dim; i++, q += strip->rows, k += STRIP_PANEL) {
        __m256 k_0 = _mm256_load_ps(k), k_1 = _mm256_load_ps(k + LANES);
        for (int r = 0; r < rows; r++) {
            __m256 a = _mm256_broadcast_ss(q + r);
            sum[r][0] = _mm256_fmadd_ps(a, k_0, sum[r][0]);
            sum[r][1] = _mm256_fmadd_ps(a, k_1, sum[r][1]);
        }
    }
    for (int r = 0; r < rows; r++) {
        _mm256_store_ps(scores + r * STRIP_STRIDE, sum[r][0]);
        _mm256_store_ps(scores + r * STRIP_STRIDE + LANES, sum[r][1]);
    }
}

/* Columns [column, column + 16) of the values: o [rows] := o * factor + weights . v over all tiles of the strip */
MICRO_KERNEL add_value_columns(int rows, const struct strip *strip, int first, int column, const float *factor)
{
    int panel = column / STRIP_PANEL, width = (int)i64_min(STRIP_PANEL, strip->dim - panel * STRIP_PANEL);
    float *o = strip->state.o + first * strip->dim + column;
    __m256 sum[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++)
            sum[r][j] =
                _mm256_mul_ps(_mm256_loadu_ps(o + r * strip->dim + j * LANES), _mm256_set1_ps(factor[first + r]));
    const float *weights = strip->scores + first * STRIP_STRIDE;
    for (int t = 0; t < strip->n_tiles; t++) {
        const float *v = (const float *)(strip->tiles + (size_t)t * strip->tile_bytes);
        v += strip_value_panel(panel, strip->dim) + column % STRIP_PANEL;
        for (int key = 0; key < ATTN_KEY_TILE; key++, weights++, v += width) {
            __m256 v_0 = _mm256_load_ps(v), v_1 = _mm256_load_ps(v + LANES);
            for (int r = 0; r < rows; r++) {
                __m256 a = _mm256_broadcast_ss(weights + r * STRIP_STRIDE);
                sum[r][0] = _mm256_fmadd_ps(a, v_0, sum[r][0]);
                sum[r][1] = _mm256_fmadd_ps(a, v_1, sum[r][1]);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < 2; j++)
            _mm256_storeu_ps(o + r * strip->dim + j * LANES, sum[r][j]);
}

MICRO_KERNEL score_rows(int rows, const struct strip *strip, int first)
{
    for (int i = 0; i < strip->n_tiles * ATTN_KEY_TILE; i += COLUMNS) {
        const float *tile = (const float *)(strip->tiles + (size_t)(i / ATTN_KEY_TILE) * strip->tile_bytes);
        const float *k = tile + strip_key_panel(i % ATTN_KEY_TILE / STRIP_PANEL, strip->dim) + i % STRIP_PANEL;
        if (first == 0 && i % STRIP_PANEL == 0)
            strip_fetch_ahead(strip, i / STRIP_PANEL);
        score_columns(rows, strip, (const float *)strip->q + first, k, strip->scores + first * STRIP_STRIDE + i);
    }
}

MICRO_KERNEL add_value_rows(int rows, const struct strip *strip, int first, const float *factor)
{
    for (int column = 0; column < strip->dim; column += COLUMNS)
        add_value_columns(rows, strip, first, column, factor);
}

#define FOR_ROWS(rows)                                                                                             \
    static void score_##rows(const struct strip *strip, int first)                                                 \
    {                                                                                                              \
        score_rows(rows, strip, first);                                                                            \
    }                                                                                                              \
    static void add_values_##rows(const struct strip *strip, int first, const float *factor)                       \
    {                                                                                                              \
        add_value_rows(rows, strip, first, factor);                                                                \
    }
FOR_ROWS(1)
FOR_ROWS(2)
FOR_ROWS(3)
FOR_ROWS(4)
FOR_ROWS(5)
FOR_ROWS(6)

static float largest_score(const float *scores, int n_tiles)
{
    __m256 high = _mm256_load_ps(scores);
    for (int i = LANES; i < n_tiles * ATTN_KEY_TILE; i += LANES)
        high = _mm256_max_ps(high, _mm256_load_ps(scores + i));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps(high, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

/* 2^(score - m), or 0 below the floor; 2^r by a polynomial on [-1/2, 1/2], relative error 1.1e-7. */
static inline __m256 weight_of(__m256 score, __m256 floor, __m256 shift)
{
    __m256 seen = _mm256_cmp_ps(score, floor, _CMP_NLT_UQ);
    __m256 shifted = _mm256_add_ps(score, shift); /* round(score) - m in the lowest bits */
    __m256 r = _mm256_sub_ps(score, _mm256_sub_ps(shifted, shift));
    __m256 power = _mm256_set1_ps(0.00132647273f);
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(0.00967151299f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(0.0555073358f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(0.240222424f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(0.693147004f));
    power = _mm256_fmadd_ps(power, r, _mm256_set1_ps(1.0f));
    __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    return _mm256_and_ps(seen, _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(power), exponent)));
}

/* scores := weights of one row with reference m; returns l + their sum, tile by tile */
static float weigh_row(float *scores, int n_tiles, float m, float l)
{
    __m256 floor = _mm256_set1_ps(m + STRIP_FLOOR), shift = _mm256_set1_ps(STRIP_SHIFT - m);
    for (int t = 0; t < n_tiles; t++) {
        __m256 even = _mm256_setzero_ps(), odd = even;
        for (int i = 0; i < VECTORS_OF_TILE; i += 2, scores += 2 * LANES) {
            __m256 w_0 = weight_of(_mm256_load_ps(scores), floor, shift);
            __m256 w_1 = weight_of(_mm256_load_ps(scores + LANES), floor, shift);
            _mm256_store_ps(scores, w_0);
            _mm256_store_ps(scores + LANES, w_1);
            even = _mm256_add_ps(even, w_0);
            odd = _mm256_add_ps(odd, w_1);
        }
        __m256 both = _mm256_add_ps(even, odd);
        __m128 four = _mm_add_ps(_mm256_castps256_ps128(both), _mm256_extractf128_ps(both, 1));
        __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        l += _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
    }
    return l;
}

/* The scores of a strip become weights, in place; factor [rows]: for o. */
static void weigh_strip(const struct strip *strip, float *factor)
{
    struct attn_state state = strip->state;
    for (int r = 0; r < strip->rows; r++) {
        float *scores = strip->scores + r * STRIP_STRIDE, m = 0;
        factor[r] = 1;
        if (strip_sees(strip, r)) {
            factor[r] = strip_raise(state.m + r, largest_score(scores, strip->n_tiles));
            m = state.m[r];
        }
        /* a row that sees nothing here may have no reference yet: any will do, its weights are all 0 */
        state.l[r] = weigh_row(scores, strip->n_tiles, m, state.l[r] * factor[r]);
    }
}

static void score_strip(const struct strip *strip)
{
    static void (*const score[ROWS])(const struct strip *, int) = {score_1, score_2, score_3,
                                                                   score_4, score_5, score_6};
    for (int first = 0; first < strip->rows; first += ROWS)
        score[i64_min(ROWS, strip->rows - first) - 1](strip, first);
}

static void attend_strip(const struct strip *strip)
{
    static void (*const add_values[ROWS])(const struct strip *, int, const float *) = {
        add_values_1, add_values_2, add_values_3, add_values_4, add_values_5, add_values_6};
    float factor[STRIP_ROWS];
    weigh_strip(strip, factor);
    for (int first = 0; first < strip->rows; first += ROWS)
        add_values[i64_min(ROWS, strip->rows - first) - 1](strip, first, factor);
}

/* sums [8] += what 8 keys get */
static inline void receive(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums)
{
    const __m256 floor = _mm256_set1_ps(STRIP_FLOOR), shift = _mm256_set1_ps(STRIP_SHIFT);
    __m256i low = _mm256_loadu_si256((const void *)sums), high = _mm256_loadu_si256((const void *)(sums + 4));
    for (int r = rows->first; r < strip->rows; r += rows->step) {
        const __m256 score = _mm256_load_ps(strip->scores + r * STRIP_STRIDE + key);
        const __m256 weight = weight_of(_mm256_sub_ps(score, _mm256_set1_ps(rows->lse[r])), floor, shift);
        const __m256i units = _mm256_cvttps_epi32(_mm256_mul_ps(weight, _mm256_set1_ps(STRIP_UNITS)));
        low = _mm256_add_epi64(low, _mm256_cvtepi32_epi64(_mm256_castsi256_si128(units)));
        high = _mm256_add_epi64(high, _mm256_cvtepi32_epi64(_mm256_extracti128_si256(units, 1)));
    }
    _mm256_storeu_si256((void *)sums, low);
    _mm256_storeu_si256((void *)(sums + 4), high);
}

static void receive_tile(const struct strip *strip, const struct strip_class *rows, int key, int64_t *sums)
{
    for (int i = 0; i < ATTN_KEY_TILE; i += LANES)
        receive(strip, rows, key + i, sums + i);
}

static const struct strip_arithmetic of_f32 = {
    .form = STRIP_F32, .score = score_strip, .attend = attend_strip, .receive = receive_tile};
static const struct strip_arithmetic of_bf16 = {
    .form = STRIP_WIDE, .widen = widen, .score = score_strip, .attend = attend_strip, .receive = receive_tile};

const struct attn_kernel attn_kernel_avx2_f32 = {
    .name = "avx2-f32",
    .dtype = DTYPE_F32,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_f32,
    .pack = strip_pack_f32,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_f32,
};

const struct attn_kernel attn_kernel_avx2_bf16 = {
    .name = "avx2-bf16",
    .dtype = DTYPE_BF16,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_bf16,
    .pack = strip_pack_bf16,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_bf16,
};
