/* Block attention by AVX-512 fused multiply-adds: for f32, and for bf16 that is widened block by block.
 *
 * Both products are micro kernels of up to 12 rows x 32 columns: 24 accumulators in registers, two vectors of the
 * packed tile and one broadcast of the left side a step, so 24 multiply-adds for 14 loads.
 */
#include "attention/kernel_avx512.h"
#include "base/cpu.h"

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

/* Columns [0, 16) of keys [first, first + 16) of k [n][dim], transposed; zeros for keys from n on. */
static inline void load_columns(__m512i columns[LANES], const float *k, int first, int n, int dim)
{
    for (int i = 0; i < LANES; i++)
        columns[i] = first + i < n ? _mm512_loadu_si512(k + (first + i) * dim) : _mm512_setzero_si512();
    transpose(columns);
}

static void pack_f32(void *tile, const float *k, const void *v, int n, int dim)
{
    for (int key = 0; key < ATTN_KEY_TILE; key += LANES) {
        float *to = (float *)tile + strip_key_panel(key / STRIP_PANEL, dim) + key % STRIP_PANEL;
        for (int d = 0; d < dim; d += LANES) {
            __m512i columns[LANES];
            load_columns(columns, k + d, key, n, dim);
            for (int i = 0; i < LANES; i++)
                _mm512_store_si512((void *)(to + (d + i) * STRIP_PANEL), columns[i]);
        }
    }
    strip_pack_values(tile, v, n, dim, sizeof(float));
}

/* As bf16_from_f32. */
static inline __m256i round_to_bf16(__m512i bits)
{
    __m512i upper = _mm512_srli_epi32(bits, 16);
    __m512i odd = _mm512_and_si512(upper, _mm512_set1_epi32(1));
    __m512i half = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, half), 16);
    __mmask16 nan = _mm512_cmp_ps_mask(_mm512_castsi512_ps(bits), _mm512_castsi512_ps(bits), _CMP_UNORD_Q);
    return _mm512_cvtepi32_epi16(_mm512_mask_or_epi32(rounded, nan, upper, _mm512_set1_epi32(0x40)));
}

static void pack_bf16(void *tile, const float *k, const void *v, int n, int dim)
{
    for (int key = 0; key < ATTN_KEY_TILE; key += LANES) {
        bf16 *to = (bf16 *)tile + strip_key_panel(key / STRIP_PANEL, dim) + key % STRIP_PANEL;
        for (int d = 0; d < dim; d += LANES) {
            __m512i columns[LANES];
            load_columns(columns, k + d, key, n, dim);
            for (int i = 0; i < LANES; i++)
                _mm256_store_si256((__m256i *)(to + (d + i) * STRIP_PANEL), round_to_bf16(columns[i]));
        }
    }
    strip_pack_values(tile, v, n, dim, sizeof(bf16));
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

/* The scores of a strip become weights, in place; factor [rows]: for o. */
static void weigh_strip(const struct strip *strip, float *factor)
{
    raise_references(strip, factor);
    for (int r = 0; r < strip->rows; r++) {
        struct reference reference = reference_of(strip, r);
        __m512 lanes[STRIP_TILES] = {0};
        for (int t = 0; t < strip->n_tiles; t++) {
            float *scores = strip->scores + r * STRIP_STRIDE + t * ATTN_KEY_TILE;
            __m512 weights[4];
            lanes[t] = weigh_tile(scores, reference, weights);
            for (int i = 0; i < 4; i++)
                _mm512_store_ps(scores + i * LANES, weights[i]);
        }
        strip->state.l[r] = add_lanes(lanes, strip->state.l[r]);
    }
}

MICRO_KERNEL score_rows(int rows, const struct strip *strip)
{
    for (int t = 0; t < strip->n_tiles; t++) {
        const float *k = (const float *)(strip->tiles + (size_t)t * strip->tile_bytes);
        float *scores = strip->scores + t * ATTN_KEY_TILE;
        for (int j = 0; j < ATTN_KEY_TILE / STRIP_PANEL; j++) {
            strip_fetch_ahead(strip, t * ATTN_KEY_TILE / STRIP_PANEL + j);
            score_panel(rows, strip->q, k + strip_key_panel(j, strip->dim), strip->dim, scores + j * STRIP_PANEL);
        }
    }
}

MICRO_KERNEL add_value_rows(int rows, const struct strip *strip, const float *factor)
{
    int panels = strip->dim / STRIP_PANEL;
    for (int j = 0; j < panels; j++)
        add_value_panel(rows, 2, strip, j, factor);
    if (strip->dim % STRIP_PANEL)
        add_value_panel(rows, 1, strip, panels, factor);
}

FOR_ALL_ROWS

static void attend_strip(const struct strip *strip)
{
    float factor[STRIP_ROWS];
    weigh_strip(strip, factor);
    add_values(strip, factor);
}

static const struct strip_arithmetic of_f32 = {
    .form = STRIP_F32, .score = score_strip, .attend = attend_strip, .receive = receive_tile};
static const struct strip_arithmetic of_bf16 = {
    .form = STRIP_WIDE, .widen = widen, .score = score_strip, .attend = attend_strip, .receive = receive_tile};

const struct attn_kernel attn_kernel_avx512_f32 = {
    .name = "avx512-f32",
    .dtype = DTYPE_F32,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_f32,
    .pack = pack_f32,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_f32,
};

const struct attn_kernel attn_kernel_avx512_bf16_fma = {
    .name = "avx512-bf16-fma",
    .dtype = DTYPE_BF16,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_bf16,
    .pack = pack_bf16,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_bf16,
};
