/* Decode: one token through all layers. */
#include "model/forward_state.h"

void forward_share_rows(struct forward *f, int64_t n)
{
    enum { GRAIN = 16 };
    const int64_t ranks = f->options.group->size;
    for (int64_t r = 0; r <= ranks; r++)
        f->token.parts[r] = r == ranks ? n : n / GRAIN * r / ranks * GRAIN;
}

/* New tokens are dealt round-robin, so that the shards stay even. */
static bool owns_token(const struct forward *f)
{
    return (f->length - f->prefilled) % f->options.group->size == f->options.group->rank;
}

/* The rank that holds the token at `position` of the segment in hand, and the row of its block. */
static int find_row(const struct forward *f, int64_t position, int64_t *row)
{
    for (int rank = 0; rank < f->options.group->size; rank++) {
        const struct zigzag z = zigzag_block(f->first, f->end, rank, f->options.group->size);
        int64_t before = 0;
        for (int part = 0; part < 2; part++) {
            if (position >= z.first[part] && position < z.end[part]) {
                *row = before + position - z.first[part];
                return rank;
            }
            before += z.end[part] - z.first[part];
        }
    }
    return -1;
}

int forward_logits(struct forward *f, int64_t index, float *logits, struct error *err)
{
    int64_t row = 0;
    const int64_t first = forward_tokens(f, f->first), n = forward_tokens(f, f->end) - first;
    const int owner = find_row(f, forward_place(f, first + index), &row);
    if (owner < 0)
        return error_set(err, ERROR_INTERNAL, "logits of token %lld of a segment of %lld", (long long)index,
                         (long long)n);
    return f->arithmetic->one->take_row(f, owner, row, err) == 0 ? f->arithmetic->one->head(f, logits, err) : -1;
}

int forward_next(struct forward *f, float *logits, struct error *err)
{
    return forward_logits(f, forward_tokens(f, f->end) - forward_tokens(f, f->first) - 1, logits, err);
}

/* Bounded memory is the host's. */
static int attend_token(struct forward *f, int layer, struct error *err)
{
    const struct forward_token *t = &f->token;
    const bool bounded = forward_attention_is_bounded(&f->options, layer);
    const struct forward_one one = {.position = f->length,
                                    .owned = owns_token(f),
                                    .qkv = bounded ? t->host_qkv : t->qkv,
                                    .out = bounded ? t->host_attended : t->attended};
    return forward_attention_attend_one(&f->attention, layer, &one, err);
}

/* The token through all layers: what it becomes is in f->token.x. */
static int carry_token(struct forward *f, int32_t token, struct error *err)
{
    const int layers = f->model->shape.layers;
    if (f->length == f->options.max_tokens)
        return error_set(err, ERROR_INTERNAL, "no room for a token behind %lld", (long long)f->length);
    if (forward_attention_begin_one(&f->attention, f->length, owns_token(f), err) != 0)
        return -1;
    for (int layer = 0; layer <= layers; layer++) {
        const struct layer_step step = {
            .tokens = &token,
            .finished = layer > 0 ? &f->model->layers[layer - 1] : NULL,
            .begun = layer < layers ? &f->model->layers[layer] : NULL,
            .begun_index = layer,
        };
        if (f->arithmetic->one->carry(f, &step, err) != 0 || (step.begun && attend_token(f, layer, err) != 0))
            return -1;
    }
    f->length++;
    return 0;
}

int forward_step(struct forward *f, int32_t token, float *logits, struct error *err)
{
    if (token < 0 || token >= f->model->shape.vocab)
        return error_set(err, ERROR_INPUT, "token id %d; the model has %d", token, f->model->shape.vocab);
    if (f->landmark_block && landmark_is(f->length, f->landmark_block) && carry_token(f, f->landmark, err) != 0)
        return -1;
    return carry_token(f, token, err) != 0 ? -1 : f->arithmetic->one->head(f, logits, err);
}
