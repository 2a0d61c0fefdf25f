#include "attention/bounded_parts.h"

int bounded_begin_one(struct bounded *b, struct error *err)
{
    for (int i = 0; i < b->options.layers; i++)
        if (near_extend(&b->layers[i].near, 1, err) != 0)
            return -1;
    return 0;
}

/* How far apart the positions of sinks and slots are that follow each other. */
static int64_t step_of(const struct bounded_layer *layer)
{
    return policy_of(layer->spec.kind)->positions == SLOTS_INDEXED ? 1 : 0;
}

/* An even share of the near rows that the query at `position` sees, by rank. */
static struct decoder_part near_part(const struct bounded *b, const struct bounded_layer *layer, int64_t position,
                                     int64_t near_first)
{
    const int64_t ranks = b->options.group->size, rank = b->options.group->rank, n = position + 1 - near_first;
    const int64_t first = near_first + n * rank / ranks, end = near_first + n * (rank + 1) / ranks;
    return (struct decoder_part){
        .keys = near_keys(&layer->near, 0, first),
        .values = near_values(&layer->near, 0, first),
        .head_stride_bytes = (size_t)layer->near.shape.capacity * bounded_row_bytes(&b->options),
        .first_position = first,
        .step = 1,
        .n = end - first,
        .query_position = position,
        .key_offset = layer->key_offset,
        .weight = 1,
    };
}

/* The sinks are everywhere; the first rank attends to them. */
static struct decoder_part sink_part(const struct bounded *b, const struct bounded_layer *layer,
                                     const struct kept_view *view, int64_t near_first)
{
    return (struct decoder_part){
        .keys = layer->sink_keys,
        .values = layer->sink_values,
        .head_stride_bytes = (size_t)layer->spec.sinks * bounded_row_bytes(&b->options),
        .step = step_of(layer),
        .n = b->options.group->rank == 0 ? i64_min(layer->sinks, near_first) : 0,
        .query_position = view->position,
        .key_offset = layer->key_offset,
        .weight = 1,
    };
}

/* This rank's share of the blocks that the layer chose. */
static struct decoder_part chosen_part(const struct bounded *b, const struct bounded_layer *layer,
                                       const struct kept_view *view)
{
    int64_t n = 0;
    for (int64_t block = b->options.group->rank; block < layer->one_chosen; block += b->options.group->size)
        for (int t = 0; t < FAR_BLOCK; t++)
            b->chosen_positions[n++] = layer->sinks + block * FAR_BLOCK + t;
    return (struct decoder_part){
        .keys = layer->one_keys,
        .values = layer->one_values,
        .head_stride_bytes = (size_t)layer->one_held * bounded_row_bytes(&b->options),
        .positions = b->chosen_positions,
        .n = n,
        .query_position = view->position,
        .key_offset = layer->key_offset,
        .weight = 1,
    };
}

static struct decoder_part slot_part(const struct bounded *b, const struct bounded_layer *layer,
                                     const struct kept_view *view)
{
    const int64_t step = step_of(layer);
    return (struct decoder_part){
        .keys = layer->slots.keys,
        .values = layer->slots.values,
        .head_stride_bytes = (size_t)layer->slots.held * bounded_row_bytes(&b->options),
        .first_position = step * (layer->sinks + b->options.group->rank),
        .step = step * b->options.group->size,
        .n = slots_own(&layer->slots),
        .query_position = view->position,
        .key_offset = layer->key_offset,
        .weight = layer->spec.weigh ? (float)layer->spec.rate : 1,
    };
}

/* The query's share of chosen blocks, and of the tokens beyond its window that are in none. */
static int attend_blocks_one(struct bounded *b, struct bounded_layer *layer, const struct decoder_query *query,
                             int64_t position, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const size_t row = bounded_row_bytes(o);
    const int64_t first = layer->near.first, near_first = i64_max(first, position - layer->spec.window + 1);
    if (bounded_blocks_choose_one(b, layer, query, err) != 0)
        return -1;
    const struct kept_view view = bounded_kept_view(layer, 0, position, first);
    const size_t run = (size_t)(layer->spec.top * BLOCK_TOKENS) * row;
    const struct decoder_part chosen = {.keys = b->blocks.one,
                                        .values = b->blocks.one + (size_t)o->kv_heads * run,
                                        .head_stride_bytes = run,
                                        .n = b->blocks.one_count * BLOCK_TOKENS,
                                        .query_position = view.position,
                                        .key_offset = layer->key_offset,
                                        .weight = 1};
    struct decoder_part parts[] = {sink_part(b, layer, &view, first), chosen,
                                   near_part(b, layer, near_first - 1, first),
                                   near_part(b, layer, position, near_first)};
    parts[2].first_position = parts[2].step = 0; /* all at one place, as sinks and blocks are */
    parts[2].query_position = view.position;
    return decoder_attend(o->decoder, query, parts, 4, err);
}

int bounded_attend_one(struct bounded *b, int index, const struct decoder_query *query, struct error *err)
{
    struct bounded_layer *layer = &b->layers[index];
    const int64_t position = layer->near.first + layer->near.length - 1;
    const int64_t near_first = policy_near_first(&layer->spec, position, b->end);
    bounded_take_sinks(b, layer, position + 1);
    if (policy_past(&layer->spec) == PAST_LANDMARKS) {
        bounded_landmark_attend_one(b, layer, query, position);
        return 0;
    }
    if (policy_past(&layer->spec) == PAST_BLOCKS)
        return attend_blocks_one(b, layer, query, position, err);
    const bool retrieves = policy_past(&layer->spec) == PAST_FAR;
    if (retrieves && bounded_far_choose_one(b, layer, query, position, err) != 0)
        return -1;
    const int64_t slots = retrieves ? layer->one_chosen * FAR_BLOCK : layer->slots.count;
    const struct kept_view view = bounded_kept_view(layer, slots, position, near_first);
    struct decoder_part parts[] = {
        sink_part(b, layer, &view, near_first),
        retrieves ? chosen_part(b, layer, &view) : slot_part(b, layer, &view),
        near_part(b, layer, position, near_first),
    };
    if (layer->spec.nearest == 0)
        return decoder_attend(b->options.decoder, query, parts, 3, err);
    struct decoder_query asked = *query;
    parts[1].n = 0;
    if (!(asked.beside = bounded_nearest_one(b, layer, query, view.position, err)))
        return -1;
    return decoder_attend(b->options.decoder, &asked, parts, 3, err);
}
