/* Policy landmark against its definition, dense and in fp64, on 1 to 4 ranks: a query sees its own block and, of
 * the blocks held, those whose landmarks' keys score most, each weighted as attention/landmark.h says; where it
 * sees all blocks that is the grouped softmax that models are trained with. */
#include "tests/mpi/bounded_bed.h"

enum { TOKENS = 400, MOST_BLOCKS = 128 };

/* What a query is asked for: positions are `shift` behind where the tokens stand, but for old blocks. */
struct view {
    const struct bed *bed;
    int64_t position, first; /* of the query, and of what is held */
    int head, kv_head;
    double q[ATTN_MAX_DIM]; /* rotated */
    const bool *seen;       /* the chosen blocks, once they are chosen */
};

static int64_t length_of(const struct view *view)
{
    return view->bed->spec.rate;
}

static int64_t own_block(const struct view *view)
{
    return (view->position - view->first) / length_of(view);
}

/* There is room for `top` + 1 blocks before the query's own. When it chooses, the last `top` blocks stand behind
 * the first of these, and all before them there; the chosen ones stand in their order, those of the last `top` at
 * the end and the others at the beginning. */
static int64_t place_of(const struct view *view, int64_t token)
{
    const int64_t block = (token - view->first) / length_of(view), own = own_block(view);
    const int64_t top = i64_min(view->bed->spec.top, own);
    int64_t slot = i64_max(0, block - (own - top) + 1);
    if (view->seen && block < own) {
        slot = block >= own - top;
        for (int64_t b = 0; b < block; b++)
            slot += view->seen[b];
    }
    return slot * length_of(view) + (token - view->first) % length_of(view);
}

static double score(const struct view *view, int64_t token)
{
    double k[ATTN_MAX_DIM];
    row_of(&view->bed->shape, KEY, token, view->kv_head, k);
    rotate(&view->bed->shape, place_of(view, token), k);
    return dot(view->q, k, view->bed->shape.dim) * (double)view->bed->shape.scale;
}

static int64_t landmark_of(const struct view *view, int64_t block)
{
    return view->first + (block + 1) * length_of(view) - 1;
}

/* seen [own]: of the blocks before the query's own the `top` with the largest scores of landmarks. */
static void choose(const struct view *view, bool *seen)
{
    double scores[MOST_BLOCKS];
    const int64_t own = own_block(view);
    for (int64_t b = 0; b < own; b++) {
        scores[b] = score(view, landmark_of(view, b));
        seen[b] = false;
    }
    for (int64_t i = 0; i < i64_min(view->bed->spec.top, own); i++) {
        int64_t best = -1;
        for (int64_t b = 0; b < own; b++)
            if (!seen[b] && (best < 0 || scores[b] > scores[best]))
                best = b;
        seen[best] = true;
    }
}

static void add(const struct view *view, int64_t token, double weight, double *out)
{
    double v[ATTN_MAX_DIM];
    row_of(&view->bed->shape, VALUE, token, view->kv_head, v);
    for (int e = 0; e < view->bed->shape.dim; e++)
        out[e] += weight * v[e];
}

/* out += weight times the softmax over a block's tokens, its landmark not among them. */
static void add_block(const struct view *view, int64_t block, double weight, double *out)
{
    const int64_t first = view->first + block * length_of(view), end = landmark_of(view, block);
    double sum = 0;
    for (int64_t t = first; t < end; t++)
        sum += exp(score(view, t));
    for (int64_t t = first; t < end; t++)
        add(view, t, weight * exp(score(view, t)) / sum, out);
}

static void define(const struct bed *bed, int64_t position, int head, double *out)
{
    const int64_t segment = bed_segment_first(bed, position);
    struct view view = {.bed = bed,
                        .position = position,
                        .first = i64_max(0, segment - bed->spec.window) / bed->spec.rate * bed->spec.rate,
                        .head = head,
                        .kv_head = head / (bed->shape.heads / bed->shape.kv_heads)};
    const int64_t own = own_block(&view), first = view.first + own * bed->spec.rate;
    const int64_t end = i64_min(position + 1, landmark_of(&view, own));
    bool seen[MOST_BLOCKS];
    double sum = 0;
    row_of(&bed->shape, QUERY, position, head, view.q);
    rotate(&bed->shape, place_of(&view, position), view.q);
    choose(&view, seen);
    view.seen = seen;
    memset(out, 0, (size_t)bed->shape.dim * sizeof *out);
    for (int64_t t = first; t < end; t++)
        sum += exp(score(&view, t));
    for (int64_t b = 0; b < own; b++)
        sum += seen[b] ? exp(score(&view, landmark_of(&view, b))) : 0;
    for (int64_t t = first; t < end; t++)
        add(&view, t, exp(score(&view, t)) / sum, out);
    for (int64_t b = 0; b < own; b++)
        if (seen[b])
            add_block(&view, b, exp(score(&view, landmark_of(&view, b))) / sum, out);
}

static void check(const char *policy, int64_t segment)
{
    struct bed bed = {.shape = {4, 2, 16, 16, 10000.0, DTYPE_F32, ROPE_HALVES, 0.6f, 0, 2e-5},
                      .segment = segment,
                      .define = define};
    bed_check(&bed, policy, TOKENS);
}

static void all_blocks_are_the_trained_softmax(void **state)
{
    (void)state;
    check("landmark:token=0,block=16,top=1000", 128);
    check("landmark:token=0,block=9,top=1000", 77);
}

static void the_best_blocks_are_seen(void **state)
{
    (void)state;
    check("landmark:token=0,block=16,top=3", 128);
    check("landmark:token=0,block=8,top=1", 400);
}

static void old_blocks_leave(void **state)
{
    (void)state;
    check("landmark:token=0,block=16,top=3,memory=100", 64);
    check("landmark:token=0,block=5,top=2,memory=1", 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        mpi_unit_test(all_blocks_are_the_trained_softmax),
        mpi_unit_test(the_best_blocks_are_seen),
        mpi_unit_test(old_blocks_leave),
    };
    return mpi_run_tests(tests);
}
