#include "attention/ring_block.h"

#include "attention/layout.h"

/* Where the parts of a block lie, from its start. */
struct layout {
    size_t positions, o, m, l, q, total;
};

static bool layout_make(const struct ring_options *options, int64_t tokens, struct layout *layout)
{
    const size_t dim = (size_t)options->dim;
    size_t rows, total = 0;
    *layout = (struct layout){0};
    bool fits = size_mul((size_t)tokens, (size_t)options->heads, &rows) &&
                layout_reserve(&total, (size_t)tokens, sizeof(int64_t), &layout->positions) &&
                layout_reserve(&total, rows, dim * sizeof(float), &layout->o) &&
                layout_reserve(&total, rows, sizeof(float), &layout->m) &&
                layout_reserve(&total, rows, sizeof(float), &layout->l) &&
                layout_reserve(&total, rows, dim * dtype_size(options->kernel->dtype), &layout->q);
    layout->total = total;
    return fits;
}

bool ring_block_bytes(const struct ring_options *options, int64_t tokens, size_t *out)
{
    struct layout layout;
    bool fits = layout_make(options, tokens, &layout);
    *out = layout.total;
    return fits;
}

struct ring_block ring_block_at(const struct ring_options *options, void *start, int64_t tokens)
{
    struct layout layout;
    layout_make(options, tokens, &layout);
    char *at = start;
    return (struct ring_block){
        .tokens = tokens,
        .start = at,
        .bytes = layout.total,
        .positions = (int64_t *)(at + layout.positions),
        .state = {(float *)(at + layout.o), (float *)(at + layout.m), (float *)(at + layout.l)},
        .q = at + layout.q,
    };
}
