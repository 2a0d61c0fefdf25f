/* Block attention by the bf16 dot product of AVX-512 (vdpbf16ps): two neighbours of the summed dimension a lane.
 *
 * The micro kernels are those of kernel_avx512.c with half the steps. The weights are rounded to bf16 before they
 * meet the values, their sum l is taken before; tests hold the answer to 8e-3 of fp64.
 */
#include "attention/kernel_avx512.h"
#include "base/cpu.h"

enum {
    WORD_STRIDE = STRIP_KEYS / 2 + 16 /* words of two weights between rows */
};

static bool supported(void)
{
    return cpu_features().avx512_bf16;
}

/* d + a . b of each lane's pair */
static inline __m512 dot_pairs(__m512 d, __m512i a, __m512i b)
{
    return _mm512_dpbf16_ps(d, (__m512bh)a, (__m512bh)b);
}

/* The words of columns [0, 2 * words) of keys [first, first + 16) of k [n][dim], transposed. */
static inline void load_columns(__m512i columns[LANES], const float *k, int first, int n, int dim, int words)
{
    for (int i = 0; i < LANES; i++) {
        const float *from = k + (first + i) * dim;
        columns[i] = _mm512_setzero_si512();
        if (first + i < n) {
            __m512 high = words == LANES ? _mm512_loadu_ps(from + LANES) : _mm512_setzero_ps();
            columns[i] = (__m512i)_mm512_cvtne2ps_pbh(high, _mm512_loadu_ps(from));
        }
    }
    transpose(columns);
}

static void pack_keys(uint32_t *tile, const float *k, int n, int dim)
{
    for (int key = 0; key < ATTN_KEY_TILE; key += LANES) {
        uint32_t *to = tile + strip_key_panel(key / STRIP_PANEL, dim) / 2 + key % STRIP_PANEL;
        for (int d = 0; d < dim; d += 2 * LANES) {
            int words = (int)i64_min(LANES, (dim - d) / 2);
            __m512i columns[LANES];
            load_columns(columns, k + d, key, n, dim, words);
            for (int i = 0; i < words; i++)
                _mm512_store_si512((void *)(to + (d / 2 + i) * STRIP_PANEL), columns[i]);
        }
    }
}

static inline __m512i load_wide(const bf16 *from)
{
    return _mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)from));
}

static void pack_values(uint32_t *to, const bf16 *v, int n, int dim)
{
    for (int first = 0; first < dim; first += STRIP_PANEL) {
        int width = (int)i64_min(STRIP_PANEL, dim - first);
        for (int key = 0; key < ATTN_KEY_TILE; key += 2, to += width)
            for (int d = 0; d < width; d += LANES) {
                const bf16 *from = v + key * dim + first + d;
                __m512i even = key < n ? load_wide(from) : _mm512_setzero_si512();
                __m512i odd = key + 1 < n ? load_wide(from + dim) : _mm512_setzero_si512();
                _mm512_store_si512((void *)(to + d), _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
            }
    }
}

static void pack(void *tile, const float *k, const void *v, int n, int dim)
{
    pack_keys(tile, k, n, dim);
    pack_values((uint32_t *)tile + ATTN_KEY_TILE / 2 * dim, v, n, dim);
}

/* scores [rows][32] = q [dim / 2][rows] . k [dim / 2][32], words of two */
MICRO_KERNEL score_panel(int rows, const int32_t *q, const uint32_t *k, int dim, float *scores)
{
    __m512 sum[STRIP_ROWS][2];
    for (int r = 0; r < rows; r++)
        sum[r][0] = sum[r][1] = _mm512_setzero_ps();
    for (int i = 0; i < dim / 2; i++, q += rows, k += STRIP_PANEL) {
        __m512i k_0 = _mm512_load_si512(k), k_1 = _mm512_load_si512(k + LANES);
        for (int r = 0; r < rows; r++) {
            __m512i a = _mm512_set1_epi32(q[r]);
            sum[r][0] = dot_pairs(sum[r][0], a, k_0);
            sum[r][1] = dot_pairs(sum[r][1], a, k_1);
        }
    }
    for (int r = 0; r < rows; r++) {
        _mm512_store_ps(scores + r * STRIP_STRIDE, sum[r][0]);
        _mm512_store_ps(scores + r * STRIP_STRIDE + LANES, sum[r][1]);
    }
}

/* The weights of a strip in words of two keys: [rows][WORD_STRIDE], behind the scores. */
static inline int32_t *weight_words(const struct strip *strip)
{
    return (int32_t *)(strip->scores + STRIP_ROWS * STRIP_STRIDE);
}

/* o [rows][16 * vectors] of one panel := o * factor + weights . v over all tiles of the strip */
MICRO_KERNEL add_value_panel(int rows, int vectors, const struct strip *strip, int panel, const float *factor)
{
    __m512 sum[STRIP_ROWS][2];
    float *o = strip->state.o + panel * STRIP_PANEL;
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            sum[r][j] = _mm512_mul_ps(_mm512_loadu_ps(o + r * strip->dim + j * LANES), _mm512_set1_ps(factor[r]));
    const int32_t *weights = weight_words(strip);
    for (int t = 0; t < strip->n_tiles; t++) {
        const uint32_t *v = (const uint32_t *)(strip->tiles + (size_t)t * strip->tile_bytes);
        v += strip_value_panel(panel, strip->dim) / 2;
        for (int pair = 0; pair < ATTN_KEY_TILE / 2; pair++, weights++, v += vectors * LANES) {
            __m512i v_0 = _mm512_load_si512(v), v_1 = _mm512_load_si512(v + (vectors - 1) * LANES);
            for (int r = 0; r < rows; r++) {
                __m512i a = _mm512_set1_epi32(weights[r * WORD_STRIDE]);
                sum[r][0] = dot_pairs(sum[r][0], a, v_0);
                if (vectors == 2)
                    sum[r][1] = dot_pairs(sum[r][1], a, v_1);
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int j = 0; j < vectors; j++)
            _mm512_storeu_ps(o + r * strip->dim + j * LANES, sum[r][j]);
}

/* The weights of a strip from its scores; factor [rows]: for o. */
static void weigh_strip(const struct strip *strip, float *factor)
{
    raise_references(strip, factor);
    for (int r = 0; r < strip->rows; r++) {
        struct reference reference = reference_of(strip, r);
        __m512 lanes[STRIP_TILES] = {0};
        int32_t *words = weight_words(strip) + r * WORD_STRIDE;
        for (int t = 0; t < strip->n_tiles; t++, words += ATTN_KEY_TILE / 2) {
            __m512 weights[4];
            lanes[t] = weigh_tile(strip->scores + r * STRIP_STRIDE + t * ATTN_KEY_TILE, reference, weights);
            _mm512_store_si512((void *)words, (__m512i)_mm512_cvtne2ps_pbh(weights[1], weights[0]));
            _mm512_store_si512((void *)(words + LANES), (__m512i)_mm512_cvtne2ps_pbh(weights[3], weights[2]));
        }
        strip->state.l[r] = add_lanes(lanes, strip->state.l[r]);
    }
}

MICRO_KERNEL score_rows(int rows, const struct strip *strip)
{
    for (int t = 0; t < strip->n_tiles; t++) {
        const uint32_t *k = (const uint32_t *)(strip->tiles + (size_t)t * strip->tile_bytes);
        float *scores = strip->scores + t * ATTN_KEY_TILE;
        for (int j = 0; j < ATTN_KEY_TILE / STRIP_PANEL; j++) {
            strip_fetch_ahead(strip, t * ATTN_KEY_TILE / STRIP_PANEL + j);
            score_panel(rows, strip->q, k + strip_key_panel(j, strip->dim) / 2, strip->dim,
                        scores + j * STRIP_PANEL);
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

static const struct strip_arithmetic of_pairs = {
    .form = STRIP_PAIRS, .score = score_strip, .attend = attend_strip, .receive = receive_tile};

const struct attn_kernel attn_kernel_avx512_bf16 = {
    .name = "avx512-bf16",
    .dtype = DTYPE_BF16,
    .supported = supported,
    .tile_bytes = strip_tile_bytes_bf16,
    .pack = pack,
    .scratch_bytes = strip_scratch_bytes,
    .arithmetic = &of_pairs,
};
