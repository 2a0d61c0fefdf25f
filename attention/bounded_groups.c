#include <stdlib.h>
#include <string.h>

#include "attention/bounded_parts.h"
#include "attention/pack.h"
#include "attention/ring.h"
#include "attention/rows.h"

/* ---- sizes and life ------------------------------------------------------------------------------------- */

/* Rows of a run, of all layers that choose; -1: none does. */
static int64_t most_rows(const struct bounded_options *o)
{
    int64_t most = -1;
    for (int i = 0; i < o->layers; i++)
        if (policy_block_tokens(&o->specs[i]) > 0)
            most = i64_max(most, policy_kept(&o->specs[i]));
    return most;
}

/* Ranks' stretches meet where groups do (zigzag.c): only the segment's own ends break one. */
int64_t bounded_groups_most(const struct bounded_options *o)
{
    return o->max_segment / POLICY_GROUP + 2;
}

/* Each of the four borders of a rank's two stretches is moved by half a grain at most. */
int64_t bounded_groups_most_own(const struct bounded_options *o)
{
    const int64_t tokens = 2 * i64_ceil_div(o->max_segment, 2 * (int64_t)o->group->size) + 2 * ZIGZAG_GRAIN;
    return i64_min(bounded_groups_most(o), tokens / POLICY_GROUP + 2);
}

static size_t runs_bytes(const struct bounded_options *o, int64_t rows)
{
    const int64_t tiles = bounded_groups_most_own(o) * o->kv_heads * i64_ceil_div(rows, ATTN_KEY_TILE);
    return (size_t)tiles * o->kernel->tile_bytes(o->dim);
}

static size_t raw_bytes(const struct bounded_options *o, int64_t rows)
{
    return 2 * (size_t)rows * bounded_row_bytes(o);
}

size_t bounded_groups_bytes(const struct bounded_options *o)
{
    const int64_t rows = most_rows(o);
    return rows < 0 ? 0 : runs_bytes(o, rows) + (size_t)pool_threads(o->pool) * raw_bytes(o, rows);
}

int bounded_groups_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const int64_t rows = most_rows(o), groups = bounded_groups_most(o);
    struct bounded_groups *g = &b->groups;
    if (rows < 0)
        return 0;
    g->run_tiles = i64_ceil_div(rows, ATTN_KEY_TILE);
    g->raw_bytes = raw_bytes(o, rows);
    g->items = calloc((size_t)groups, sizeof *g->items);
    g->raw = calloc((size_t)pool_threads(o->pool), sizeof *g->raw);
    if (!g->items || !g->raw)
        return error_set(err, ERROR_RESOURCE, "no memory for %lld groups of queries", (long long)groups);
    if (!(g->packed = o->device->alloc(runs_bytes(o, rows), "packed choices", err)))
        return -1;
    for (int i = 0; i < pool_threads(o->pool); i++)
        if (!(g->raw[i] = o->device->alloc(g->raw_bytes, "a thread's choice", err)))
            return -1;
    return 0;
}

void bounded_groups_free(struct bounded *b)
{
    const struct device *device = b->options.device;
    struct bounded_groups *g = &b->groups;
    for (int i = 0; g->raw && i < pool_threads(b->options.pool); i++)
        device->free(g->raw[i]);
    device->free(g->packed);
    free(g->items);
    free(g->raw);
}

/* ---- a segment's groups --------------------------------------------------------------------------------- */

/* Those of a rank's queries; a stretch that begins or ends anywhere has a broken group at either end. */
static void add_groups(struct bounded *b, int rank)
{
    struct bounded_groups *g = &b->groups;
    const struct zigzag block = zigzag_block(b->first, b->end, rank, b->options.group->size);
    int64_t row = 0;
    for (int part = 0; part < 2; part++)
        for (int64_t p = block.first[part], end; p < block.end[part]; row += end - p, p = end) {
            end = i64_min(block.end[part], (p / POLICY_GROUP + 1) * POLICY_GROUP);
            g->items[g->n++] = (struct bounded_group){rank, p, end, row};
        }
}

void bounded_groups_find(struct bounded *b)
{
    struct bounded_groups *g = &b->groups;
    g->n = 0;
    for (int rank = 0; g->items && rank < b->options.group->size; rank++) {
        const int64_t before = g->n;
        add_groups(b, rank);
        if (rank == b->options.group->rank) {
            g->own_first = before;
            g->own = g->n - before;
        }
    }
}

int64_t bounded_groups_own(const struct bounded *b, int64_t position)
{
    const struct bounded_group *groups = b->groups.items + b->groups.own_first;
    int64_t own = 0;
    while (position < groups[own].first || position >= groups[own].end)
        own++;
    return own;
}

/* ---- their runs ----------------------------------------------------------------------------------------- */

char *bounded_groups_run(const struct bounded *b, int64_t own, int kv_head)
{
    const int64_t tiles = (own * b->options.kv_heads + kv_head) * b->groups.run_tiles;
    return b->groups.packed + (size_t)tiles * b->options.kernel->tile_bytes(b->options.dim);
}

size_t bounded_copy_sinks(const struct bounded *b, const struct bounded_layer *layer, int kv_head, int64_t n,
                          const struct bounded_raw *to)
{
    const size_t row = bounded_row_bytes(&b->options), bytes = (size_t)n * row;
    const size_t at = (size_t)(kv_head * layer->spec.sinks) * row;
    if (n > 0) {
        memcpy(to->keys, layer->sink_keys + at, bytes);
        memcpy(to->values, layer->sink_values + at, bytes);
    }
    return bytes;
}

void bounded_pack(const struct bounded_packing *packing, const struct bounded_raw *raw, int kv_head, char *tile)
{
    const struct bounded_options *o = &packing->bounded->options;
    for (int64_t first = 0; first < raw->n; first += ATTN_KEY_TILE, tile += o->kernel->tile_bytes(o->dim))
        pack_tile(&(struct pack_rows){.kernel = o->kernel,
                                      .rope = packing->rope,
                                      .keys = raw->keys + (size_t)first * bounded_row_bytes(o),
                                      .values = raw->values + (size_t)first * bounded_row_bytes(o),
                                      .key_offset = key_offset_of(packing->layer->key_offset, kv_head, o->dim),
                                      .first_position = first * raw->step,
                                      .step = raw->step,
                                      .n = (int)i64_min(ATTN_KEY_TILE, raw->n - first),
                                      .dim = o->dim},
                  tile);
}
