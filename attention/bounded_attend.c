#include "attention/bounded_parts.h"

#include "attention/pack.h"
#include "attention/ring.h"
#include "attention/rows.h"

/* One of the stretches of this rank's queries, as its work items see it. */
struct pass {
    struct bounded *bounded;
    const struct bounded_layer *layer;
    const struct bounded_queries *queries;
    int64_t first, end; /* positions of the queries */
    int64_t row;        /* of the first, in the block */
    int64_t near_first; /* position of the first packed near key */
    int64_t tiles;      /* of near keys */
    int64_t tile_tokens, query_tiles;
};

struct kept_view bounded_kept_view(const struct bounded_layer *layer, int64_t slots, int64_t position,
                                   int64_t near_first)
{
    const int64_t visible = i64_min(layer->sinks, near_first) + slots;
    if (policy_of(layer->spec.kind)->positions == SLOTS_AT_ONE)
        return (struct kept_view){layer->spec.window, visible};
    if (policy_of(layer->spec.kind)->positions == SLOTS_AT_FIRST)
        return (struct kept_view){position - near_first, visible};
    return (struct kept_view){visible + position - near_first, visible};
}

/* ---- keys ----------------------------------------------------------------------------------------------- */

static void *tile_at(const struct bounded *b, char *packed, int64_t tiles, int kv_head, int64_t tile)
{
    return packed + (size_t)((int64_t)kv_head * tiles + tile) * b->options.kernel->tile_bytes(b->options.dim);
}

static const float *head_offset(const struct pass *pass, int kv_head)
{
    return key_offset_of(pass->layer->key_offset, kv_head, pass->bounded->options.dim);
}

static bool retrieves(const struct pass *pass)
{
    return policy_past(&pass->layer->spec) == PAST_FAR;
}

static bool has_blocks(const struct pass *pass)
{
    return policy_past(&pass->layer->spec) == PAST_BLOCKS;
}

static int64_t kept_tiles(const struct bounded *b)
{
    return i64_ceil_div(b->kept, ATTN_KEY_TILE);
}

/* Item: a tile of one kv head's sinks and slots. */
static void pack_kept_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    const struct bounded *b = pass->bounded;
    const int64_t tiles = kept_tiles(b), first = item % tiles * ATTN_KEY_TILE;
    const int kv_head = (int)(item / tiles);
    const bool indexed = policy_of(pass->layer->spec.kind)->positions == SLOTS_INDEXED;
    const size_t at = (size_t)((int64_t)kv_head * b->most_kept + first) * (size_t)b->options.dim *
                      dtype_size(b->options.kernel->dtype);
    (void)thread;
    pack_tile(&(struct pack_rows){.kernel = b->options.kernel,
                                  .rope = pass->queries->rope,
                                  .keys = b->kept_keys + at,
                                  .values = b->kept_values + at,
                                  .key_offset = head_offset(pass, kv_head),
                                  .first_position = indexed ? first : 0,
                                  .step = indexed,
                                  .n = (int)i64_min(ATTN_KEY_TILE, b->kept - first),
                                  .dim = b->options.dim},
              tile_at(b, b->packed_kept, tiles, kv_head, item % tiles));
}

/* Item: a tile of one kv head's near keys. */
static void pack_near_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    const struct bounded *b = pass->bounded;
    const int kv_head = (int)(item / pass->tiles);
    const int64_t position = pass->near_first + item % pass->tiles * ATTN_KEY_TILE;
    (void)thread;
    pack_tile(&(struct pack_rows){.kernel = b->options.kernel,
                                  .rope = pass->queries->rope,
                                  .keys = near_keys(&pass->layer->near, kv_head, position),
                                  .values = near_values(&pass->layer->near, kv_head, position),
                                  .key_offset = head_offset(pass, kv_head),
                                  .first_position = position,
                                  .step = 1,
                                  .n = (int)i64_min(ATTN_KEY_TILE, pass->end - position),
                                  .dim = b->options.dim},
              tile_at(b, b->packed_near, pass->tiles, kv_head, item % pass->tiles));
}

/* ---- queries -------------------------------------------------------------------------------------------- */

/* A tile of query tokens of one kv head, in a thread's scratch memory. */
struct query_tile {
    const struct pass *pass;
    struct bounded_scratch *scratch;
    int thread, kv_head;
    int64_t first, end; /* positions */
};

static int64_t near_first_of(const struct pass *pass, int64_t position)
{
    return policy_near_first(&pass->layer->spec, position, pass->bounded->first);
}

/* The rows of one token, rotated to `position`, at row `row` of the scratch memory. */
static void rotate_token(const struct query_tile *tile, int64_t token, int64_t position, int row)
{
    const struct pass *pass = tile->pass;
    const struct bounded_options *o = &pass->bounded->options;
    const int heads = pass->bounded->heads_per_kv;
    const float scale = pass->queries->scale * ATTN_LOG2_E;
    const float *q = pass->queries->q + (pass->row + token - pass->first) * pass->queries->stride +
                     (int64_t)tile->kv_head * heads * o->dim;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], rotated[ATTN_MAX_DIM];
    rope_angles(pass->queries->rope, position, cosines, sines);
    for (int g = 0; g < heads; g++) {
        rope_rotate(pass->queries->rope, cosines, sines, q + g * o->dim, rotated, o->dim, scale);
        row_from_f32(o->kernel->dtype, rotated, (char *)tile->scratch->q + (size_t)(row + g) * bounded_row_bytes(o),
                     o->dim);
    }
}

static struct attn_tile rows_of(const struct query_tile *tile, const struct attn_span *spans)
{
    const struct bounded *b = tile->pass->bounded;
    return (struct attn_tile){tile->scratch->q, spans, (int)(tile->end - tile->first) * b->heads_per_kv,
                              b->options.dim};
}

static void attend_run(const struct query_tile *tile, const struct attn_span *spans, const void *run)
{
    const struct attn_tile rows = rows_of(tile, spans);
    struct bounded_scratch *s = tile->scratch;
    attn_attend(tile->pass->bounded->options.kernel, &rows, run, &(struct attn_state){s->o, s->m, s->l}, s->kernel);
}

/* What has been summed so far counts `by` times: ln(by) on every logit. */
static void weigh_slots(const struct query_tile *tile, float by)
{
    const struct bounded *b = tile->pass->bounded;
    const struct bounded_scratch *s = tile->scratch;
    const int64_t rows = (tile->end - tile->first) * b->heads_per_kv;
    for (int64_t i = 0; i < rows * b->options.dim; i++)
        s->o[i] *= by;
    for (int64_t i = 0; i < rows; i++)
        s->l[i] *= by;
}

/* The tile's queries turned to their positions among sinks and `slots` slots; spans [rows]: which they see. */
static void turn_to_kept(const struct query_tile *tile, int64_t slots, struct attn_span *spans)
{
    const struct pass *pass = tile->pass;
    int row = 0;
    for (int64_t p = tile->first; p < tile->end; p++) {
        const struct kept_view view = bounded_kept_view(pass->layer, slots, p, near_first_of(pass, p));
        rotate_token(tile, p, view.position, row);
        for (int g = 0; g < pass->bounded->heads_per_kv; g++)
            spans[row++] = (struct attn_span){0, view.visible};
    }
}

static const void *kept_run(const struct query_tile *tile)
{
    const struct bounded *b = tile->pass->bounded;
    return tile_at(b, b->packed_kept, kept_tiles(b), tile->kv_head, 0);
}

static void attend_kept(const struct query_tile *tile)
{
    const struct pass *pass = tile->pass;
    struct bounded *b = pass->bounded;
    struct attn_span spans[ATTN_QUERY_ROWS];
    int64_t slots = pass->layer->slots.count;
    const void *run = retrieves(pass) ? bounded_far_run(b, tile->kv_head, tile->first, &slots) : kept_run(tile);
    turn_to_kept(tile, slots, spans);
    if (pass->layer->spec.nearest > 0)
        bounded_nearest_attend(b, pass->layer, pass->queries->rope,
                               &(struct bounded_tile){tile->kv_head, rows_of(tile, spans).rows, tile->thread});
    else
        attend_run(tile, spans, run);
    if (pass->layer->spec.weigh)
        weigh_slots(tile, (float)pass->layer->spec.rate);
}

/* The first tokens and chosen blocks, then what has left the window and is in no block yet; all at one distance. */
static void attend_blocks(const struct query_tile *tile)
{
    const struct pass *pass = tile->pass;
    struct attn_span chosen[ATTN_QUERY_ROWS], rest[ATTN_QUERY_ROWS];
    const int64_t first = pass->layer->near.first, window = pass->layer->spec.window;
    int64_t slots;
    const void *run = bounded_blocks_run(pass->bounded, tile->kv_head, tile->first, &slots);
    int row = 0;
    if (i64_min(first, pass->layer->sinks) + slots == 0 && tile->end <= window)
        return;
    for (int64_t p = tile->first; p < tile->end; p++) {
        const struct kept_view view = bounded_kept_view(pass->layer, slots, p, first);
        rotate_token(tile, p, view.position, row);
        for (int g = 0; g < pass->bounded->heads_per_kv; g++, row++) {
            chosen[row] = (struct attn_span){0, view.visible};
            rest[row] = (struct attn_span){0, i64_max(0, p - window + 1 - first)};
        }
    }
    attend_run(tile, chosen, run);
    attend_run(tile, rest, bounded_blocks_rest(pass->bounded, tile->kv_head));
}

/* The first near key that a query sees at its own position. */
static int64_t own_first_of(const struct pass *pass, int64_t position)
{
    const int64_t first = near_first_of(pass, position);
    return has_blocks(pass) ? i64_max(first, position - pass->layer->spec.window + 1) : first;
}

/* The same at their own positions among the near keys. */
static void turn_to_near(const struct query_tile *tile, struct attn_span *spans)
{
    const struct pass *pass = tile->pass;
    int row = 0;
    for (int64_t p = tile->first; p < tile->end; p++) {
        rotate_token(tile, p, p, row);
        for (int g = 0; g < pass->bounded->heads_per_kv; g++)
            spans[row++] = (struct attn_span){own_first_of(pass, p) - pass->near_first, p + 1 - pass->near_first};
    }
}

static const void *near_run(const struct query_tile *tile)
{
    const struct pass *pass = tile->pass;
    return tile_at(pass->bounded, pass->bounded->packed_near, pass->tiles, tile->kv_head, 0);
}

/* The rows of queries that are not observed see nothing. */
static void blind_unobserved(const struct query_tile *tile, struct attn_span *spans)
{
    const struct bounded *b = tile->pass->bounded;
    const int64_t unobserved = b->end - policy_observe(&tile->pass->layer->spec) - tile->first;
    const int64_t tokens = i64_min(i64_max(unobserved, 0), tile->end - tile->first);
    for (int64_t row = 0; row < tokens * b->heads_per_kv; row++)
        spans[row].end = spans[row].first;
}

/* What the keys get from the tile, whose queries stand as turn_to_near() has left them, with its spans. Chosen
 * blocks get nothing: they have their place already. */
static void observe_tile(const struct query_tile *tile, struct attn_span *spans, const float *lse)
{
    const struct pass *pass = tile->pass;
    const struct bounded_layer *layer = pass->layer;
    const int64_t near = layer->slots.shape.capacity + pass->near_first - layer->near.first;
    struct bounded_run run = {near_run(tile), lse, tile->thread, tile->kv_head, near, 1};
    const struct attn_tile rows = rows_of(tile, spans);
    blind_unobserved(tile, spans);
    bounded_observe_run(pass->bounded, layer, &rows, &run);
    if (has_blocks(pass) || pass->bounded->kept == 0)
        return;
    turn_to_kept(tile, layer->slots.count, spans);
    blind_unobserved(tile, spans);
    run.packed = kept_run(tile);
    run.place = 0;
    run.counts = layer->spec.weigh ? layer->spec.rate : 1;
    bounded_observe_run(pass->bounded, layer, &rows, &run);
}

/* lse [rows]: the log-sum-exp of each query. */
static void finish_tile(const struct query_tile *tile, float *lse)
{
    const struct pass *pass = tile->pass;
    const struct bounded_options *o = &pass->bounded->options;
    const int heads = pass->bounded->heads_per_kv;
    const struct bounded_scratch *s = tile->scratch;
    const int64_t tokens = tile->end - tile->first, row = pass->row + tile->first - pass->first;
    const size_t element = dtype_size(o->kernel->dtype);
    attn_state_finish(&(struct attn_state){s->o, s->m, s->l}, (int)tokens * heads, o->dim, lse);
    for (int64_t t = 0; t < tokens; t++) {
        const size_t head = (size_t)(row + t) * (size_t)o->heads + (size_t)tile->kv_head * (size_t)heads;
        row_from_f32(o->kernel->dtype, s->o + t * heads * o->dim,
                     (char *)pass->queries->out + head * (size_t)o->dim * element, (int64_t)heads * o->dim);
    }
}

/* Item: a tile of query tokens of one kv head; tiles lie at multiples of tile_tokens, so none crosses a group. */
static void attend_item(void *context, int64_t item, int thread)
{
    const struct pass *pass = context;
    struct bounded *b = pass->bounded;
    const int64_t index = pass->first / pass->tile_tokens + item % pass->query_tiles;
    const struct query_tile tile = {
        .pass = pass,
        .scratch = &b->scratch[thread],
        .thread = thread,
        .kv_head = (int)(item / pass->query_tiles),
        .first = i64_max(pass->first, index * pass->tile_tokens),
        .end = i64_min(pass->end, (index + 1) * pass->tile_tokens),
    };
    const struct bounded_scratch *s = tile.scratch;
    struct attn_span spans[ATTN_QUERY_ROWS];
    float lse[ATTN_QUERY_ROWS];
    attn_state_reset(&(struct attn_state){s->o, s->m, s->l}, (int)(tile.end - tile.first) * b->heads_per_kv,
                     b->options.dim);
    if (has_blocks(pass))
        attend_blocks(&tile);
    else if (b->kept > 0 || retrieves(pass))
        attend_kept(&tile);
    turn_to_near(&tile, spans);
    attend_run(&tile, spans, near_run(&tile));
    finish_tile(&tile, lse);
    if (pass->layer->received)
        observe_tile(&tile, spans, lse);
}

/* ---- a block -------------------------------------------------------------------------------------------- */

static void run_items(const struct pass *pass, int64_t items, void (*work)(void *, int64_t, int))
{
    const struct bounded_options *o = &pass->bounded->options;
    const struct pool_job job = {items, work, (void *)pass, o->poll, o->poll_context};
    if (items > 0)
        pool_run(o->pool, &job);
}

/* The largest power of two of tokens whose rows fit a kernel call. */
static int64_t tile_tokens_for(int heads)
{
    int64_t tokens = 1;
    while (2 * tokens * heads <= ATTN_QUERY_ROWS && 2 * tokens <= POLICY_GROUP)
        tokens *= 2;
    return tokens;
}

static void attend_stretch(struct pass *pass)
{
    const int kv_heads = pass->bounded->options.kv_heads;
    pass->near_first = near_first_of(pass, pass->first);
    pass->tiles = i64_ceil_div(pass->end - pass->near_first, ATTN_KEY_TILE);
    pass->query_tiles = (pass->end - 1) / pass->tile_tokens - pass->first / pass->tile_tokens + 1;
    run_items(pass, pass->tiles * kv_heads, pack_near_item);
    run_items(pass, pass->query_tiles * kv_heads, attend_item);
}

void bounded_attend_block(struct bounded *b, struct bounded_layer *layer, const struct bounded_queries *queries)
{
    struct zigzag block = zigzag_block(b->first, b->end, b->options.group->rank, b->options.group->size);
    if (block.end[0] == block.first[1]) { /* neighbours: one stretch, whose near keys are packed once */
        block.end[0] = block.end[1];
        block.first[1] = block.end[1];
    }
    struct pass pass = {
        .bounded = b, .layer = layer, .queries = queries, .tile_tokens = tile_tokens_for(b->heads_per_kv)};
    if (!retrieves(&pass) && !has_blocks(&pass) && layer->spec.nearest == 0)
        run_items(&pass, kept_tiles(b) * b->options.kv_heads, pack_kept_item);
    for (int part = 0; part < 2; part++) {
        pass.first = block.first[part];
        pass.end = block.end[part];
        if (pass.first < pass.end)
            attend_stretch(&pass);
        pass.row += pass.end - pass.first;
    }
}
