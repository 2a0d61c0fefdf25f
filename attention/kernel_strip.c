#include "attention/kernel_strip.h"

#include <math.h>
#include <string.h>

enum { PANELS_OF_KEYS = ATTN_KEY_TILE / STRIP_PANEL, GROUPS = ATTN_QUERY_ROWS / STRIP_ROWS };

/* Where the parts of the scratch memory lie, in floats; all multiples of 16. */
struct scratch_plan {
    size_t queries, scores, tiles, end;
};

static size_t tile_elements(int dim)
{
    return 2 * (size_t)ATTN_KEY_TILE * (size_t)dim;
}

size_t strip_tile_bytes_f32(int dim)
{
    return tile_elements(dim) * sizeof(float);
}

size_t strip_tile_bytes_bf16(int dim)
{
    return tile_elements(dim) * sizeof(bf16);
}

static struct scratch_plan plan_scratch(int dim)
{
    struct scratch_plan plan = {0};
    plan.scores = plan.queries + (size_t)ATTN_QUERY_ROWS * (size_t)dim;
    plan.tiles = plan.scores + 2 * (size_t)STRIP_ROWS * STRIP_STRIDE;
    plan.end = plan.tiles + STRIP_TILES * tile_elements(dim);
    return plan;
}

size_t strip_scratch_bytes(int dim)
{
    return plan_scratch(dim).end * sizeof(float);
}

/* The value panels: [dim / 32][64][32], the last one [64][16] when dim is an odd multiple of 16. */
void strip_pack_values(void *tile, const void *v, int n, int dim, size_t element)
{
    unsigned char *to = (unsigned char *)tile + (size_t)ATTN_KEY_TILE * (size_t)dim * element;
    const unsigned char *from = v;
    for (int d = 0; d < dim; d += STRIP_PANEL) {
        size_t row = (size_t)i64_min(STRIP_PANEL, dim - d) * element;
        for (int key = 0; key < n; key++)
            memcpy(to + (size_t)key * row, from + ((size_t)key * (size_t)dim + (size_t)d) * element, row);
        memset(to + (size_t)n * row, 0, (size_t)(ATTN_KEY_TILE - n) * row);
        to += ATTN_KEY_TILE * row;
    }
}

void strip_pack_f32(void *tile, const float *k, const void *v, int n, int dim)
{
    float *to = tile;
    for (int j = 0; j < PANELS_OF_KEYS; j++, to += strip_key_panel(1, dim)) {
        int keys = (int)i64_max(0, i64_min(STRIP_PANEL, n - j * STRIP_PANEL));
        const float *from = k + strip_key_panel(j, dim);
        if (keys < STRIP_PANEL)
            memset(to, 0, strip_key_panel(1, dim) * sizeof *to);
        /* eight rows at a time: each line of the panel is then written in few visits */
        for (int d = 0; d < dim; d += 8)
            for (int key = 0; key < keys; key++)
                for (int i = d; i < d + 8; i++)
                    to[i * STRIP_PANEL + key] = from[(size_t)key * (size_t)dim + (size_t)i];
    }
    strip_pack_values(tile, v, n, dim, sizeof(float));
}

void strip_pack_bf16(void *tile, const float *k, const void *v, int n, int dim)
{
    bf16 *to = tile;
    for (int j = 0; j < PANELS_OF_KEYS; j++, to += strip_key_panel(1, dim)) {
        int keys = (int)i64_max(0, i64_min(STRIP_PANEL, n - j * STRIP_PANEL));
        const float *from = k + strip_key_panel(j, dim);
        if (keys < STRIP_PANEL)
            memset(to, 0, strip_key_panel(1, dim) * sizeof *to);
        for (int d = 0; d < dim; d += 8)
            for (int key = 0; key < keys; key++)
                for (int i = d; i < d + 8; i++)
                    to[i * STRIP_PANEL + key] = bf16_from_f32(from[(size_t)key * (size_t)dim + (size_t)i]);
    }
    strip_pack_values(tile, v, n, dim, sizeof(bf16));
}

/* The queries of each group of rows as [steps][rows of the group]: what a micro kernel broadcasts in one step
 * lies together. */
static void pack_queries(const struct strip_arithmetic *arithmetic, const struct attn_tile *tile, uint32_t *to)
{
    size_t steps = (size_t)tile->dim / (arithmetic->form == STRIP_PAIRS ? 2 : 1);
    for (int first = 0; first < tile->rows; first += STRIP_ROWS) {
        int rows = (int)i64_min(STRIP_ROWS, tile->rows - first);
        for (int r = 0; r < rows; r++) {
            _Alignas(ATTN_ALIGN) uint32_t words[ATTN_MAX_DIM];
            size_t row = (size_t)(first + r);
            if (arithmetic->form == STRIP_WIDE)
                arithmetic->widen((const bf16 *)tile->q + row * (size_t)tile->dim, (float *)words,
                                  (size_t)tile->dim);
            else
                memcpy(words, (const unsigned char *)tile->q + row * steps * sizeof *words, steps * sizeof *words);
            for (size_t i = 0; i < steps; i++)
                to[i * (size_t)rows + (size_t)r] = words[i];
        }
        to += steps * (size_t)rows;
    }
}

/* The tiles of the run, within [first, end), that some of the rows see; empty: first >= end. */
static struct attn_span tiles_seen(const struct attn_span *spans, int rows, struct attn_span within)
{
    struct attn_span keys = {within.end * ATTN_KEY_TILE, within.first * ATTN_KEY_TILE}, seen = keys;
    for (int r = 0; r < rows; r++) {
        int64_t first = i64_max(spans[r].first, keys.end), end = i64_min(spans[r].end, keys.first);
        if (first >= end)
            continue;
        seen.first = i64_min(seen.first, first);
        seen.end = i64_max(seen.end, end);
    }
    return (struct attn_span){seen.first / ATTN_KEY_TILE, i64_ceil_div(seen.end, ATTN_KEY_TILE)};
}

/* Scores outside of the spans become -inf. */
static void mask_scores(const struct strip *strip)
{
    int64_t n = (int64_t)strip->n_tiles * ATTN_KEY_TILE;
    for (int r = 0; r < strip->rows; r++) {
        float *scores = strip->scores + (size_t)r * STRIP_STRIDE;
        int64_t first = i64_min(i64_max(strip->spans[r].first - strip->first_key, 0), n);
        int64_t end = i64_max(i64_min(strip->spans[r].end - strip->first_key, n), first);
        for (int64_t i = 0; i < first; i++)
            scores[i] = -INFINITY;
        for (int64_t i = end; i < n; i++)
            scores[i] = -INFINITY;
    }
}

/* What is done with strips: rows attend, or are observed. */
struct walk {
    const struct strip_arithmetic *arithmetic;
    const struct attn_tile *tile;
    const struct attn_state *state;       /* NULL: not wanted */
    const struct attn_received *received; /* the same */
};

static void attend_strip(const struct walk *walk, int first, struct strip *strip)
{
    const struct attn_state *state = walk->state;
    strip->state =
        (struct attn_state){state->o + (size_t)first * (size_t)walk->tile->dim, state->m + first, state->l + first};
    walk->arithmetic->attend(strip);
}

static void observe_strip(const struct walk *walk, int first, const struct strip *strip)
{
    const struct attn_received *received = walk->received;
    const int classes = received->classes;
    float lse[STRIP_ROWS];
    for (int r = 0; r < strip->rows; r++) /* where nothing is seen there may be none, and all scores are -inf */
        lse[r] = strip_sees(strip, r) ? received->lse[first + r] * ATTN_LOG2_E : 0;
    for (int c = 0; c < classes; c++) {
        const struct strip_class rows = {(c - first % classes + classes) % classes, classes, lse};
        int64_t *sums = received->sums + c * received->stride + strip->first_key;
        for (int key = 0; key < strip->n_tiles * ATTN_KEY_TILE; key += ATTN_KEY_TILE)
            walk->arithmetic->receive(strip, &rows, key, sums + key);
    }
}

/* One strip of rows from `first` on. */
static void do_strip(const struct walk *walk, int first, struct strip *strip)
{
    walk->arithmetic->score(strip);
    mask_scores(strip);
    if (walk->state)
        attend_strip(walk, first, strip);
    else
        observe_strip(walk, first, strip);
}

/* Every group of rows and the tiles `block` of the run; strip->tiles is where the first of them lies. */
static void walk_groups(const struct walk *walk, struct attn_span block, struct strip *strip)
{
    const struct attn_tile *tile = walk->tile;
    const unsigned char *tiles = strip->tiles, *ahead = strip->ahead;
    const uint32_t *q = strip->q;
    size_t steps = (size_t)tile->dim / (walk->arithmetic->form == STRIP_PAIRS ? 2 : 1);
    for (int first = 0; first < tile->rows; first += STRIP_ROWS) {
        strip->rows = (int)i64_min(STRIP_ROWS, tile->rows - first);
        strip->spans = tile->spans + first;
        struct attn_span seen = tiles_seen(strip->spans, strip->rows, block);
        if (seen.first >= seen.end)
            continue;
        strip->q = q + steps * (size_t)first;
        strip->ahead = ahead + (size_t)(first / STRIP_ROWS) * strip->ahead_bytes;
        strip->tiles = tiles + (size_t)(seen.first - block.first) * strip->tile_bytes;
        strip->n_tiles = (int)(seen.end - seen.first);
        strip->first_key = seen.first * ATTN_KEY_TILE;
        do_strip(walk, first, strip);
    }
}

static void walk_run(const struct walk *walk, const void *packed, void *scratch)
{
    const struct strip_arithmetic *arithmetic = walk->arithmetic;
    const struct attn_tile *tile = walk->tile;
    struct scratch_plan plan = plan_scratch(tile->dim);
    float *memory = scratch;
    size_t elements = tile_elements(tile->dim);
    size_t packed_bytes = elements * (arithmetic->form == STRIP_F32 ? sizeof(float) : sizeof(bf16));
    struct attn_span all = tiles_seen(tile->spans, tile->rows, (struct attn_span){0, INT64_MAX / ATTN_KEY_TILE});
    /* few rows: a widened tile is used once, and should still be in the first-level cache then */
    int64_t block_tiles = arithmetic->form == STRIP_WIDE && tile->rows <= STRIP_ROWS ? 1 : STRIP_TILES;
    pack_queries(arithmetic, tile, (uint32_t *)scratch + plan.queries);

    for (int64_t first = all.first - all.first % block_tiles; first < all.end; first += block_tiles) {
        int64_t next = first + block_tiles;
        struct attn_span block = tiles_seen(tile->spans, tile->rows, (struct attn_span){first, next});
        if (block.first >= block.end)
            continue;
        struct strip strip = {.q = memory + plan.queries,
                              .tiles = (const unsigned char *)packed + (size_t)block.first * packed_bytes,
                              .tile_bytes = packed_bytes,
                              .ahead = (const unsigned char *)packed + (size_t)next * packed_bytes,
                              .ahead_bytes = next < all.end ? STRIP_TILES * packed_bytes / GROUPS : 0,
                              .scores = memory + plan.scores,
                              .dim = tile->dim};
        if (arithmetic->form == STRIP_WIDE) {
            arithmetic->widen((const bf16 *)strip.tiles, memory + plan.tiles,
                              (size_t)(block.end - block.first) * elements);
            strip.tiles = (const unsigned char *)(memory + plan.tiles);
            strip.tile_bytes = elements * sizeof(float);
        }
        walk_groups(walk, block, &strip);
    }
}

void attn_attend(const struct attn_kernel *kernel, const struct attn_tile *tile, const void *packed,
                 const struct attn_state *state, void *scratch)
{
    walk_run(&(struct walk){.arithmetic = kernel->arithmetic, .tile = tile, .state = state}, packed, scratch);
}

void attn_observe(const struct attn_kernel *kernel, const struct attn_tile *tile, const void *packed,
                  const struct attn_received *received, void *scratch)
{
    walk_run(&(struct walk){.arithmetic = kernel->arithmetic, .tile = tile, .received = received}, packed, scratch);
}
