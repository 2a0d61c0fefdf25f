/* Observation: how much attention each slot and each near key gets, for the policies that keep by it.
 *
 * A query's attention is its softmax over the slots and near keys that it sees; what a key gets is the sum of these
 * over queries, and the mean over the query heads of its kv head. Each rank sums over its own queries in fp64 and
 * one reduction adds the ranks' sums: 8 bytes a key, where sending queries round would take heads x dim x 4 a
 * query.
 */
#include "attention/bounded_parts.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "attention/layout.h"
#include "attention/ring.h"
#include "attention/rows.h"

enum {
    STRIPE = 256,  /* keys whose elements lie together: a stripe stays in the cache */
    ITEM_ROWS = 16 /* query tokens of a work item */
};

/* ---- sizes and life ------------------------------------------------------------------------------------- */

static int64_t slots_of(const struct bounded_options *o, const struct policy_spec *spec)
{
    return i64_min(spec->slots, o->max_tokens);
}

/* Places of a layer's sums in a kv head: slots, then near tokens. */
static int64_t places_of(const struct bounded_options *o, const struct policy_spec *spec)
{
    return slots_of(o, spec) + policy_near_reach(spec) + o->max_segment + o->max_generated;
}

static int64_t most_places(const struct bounded_options *o)
{
    int64_t most = 0;
    for (int i = 0; i < o->layers; i++)
        if (policy_observe(&o->specs[i]) > 0)
            most = i64_max(most, places_of(o, &o->specs[i]));
    return most;
}

/* Where the parts of the memory that layers share begin. */
struct plan {
    size_t keys;   /* [kv_heads][stripes][dim][STRIPE] f32, rotated */
    size_t sums;   /* [threads][kv_heads][places] f64; all sums end in the first */
    size_t rows;   /* [threads][stripes * STRIPE] f32 */
    size_t scores; /* [kv_heads][places] f64, of the candidates */
    size_t total;
};

static bool plan_make(const struct bounded_options *o, struct plan *plan)
{
    const size_t places = (size_t)i64_round_up(most_places(o), STRIPE), heads = (size_t)o->kv_heads;
    const size_t threads = (size_t)pool_threads(o->pool);
    size_t total = 0;
    *plan = (struct plan){0};
    const bool fits = layout_reserve(&total, heads * places, (size_t)o->dim * sizeof(float), &plan->keys) &&
                      layout_reserve(&total, threads * heads, places * sizeof(double), &plan->sums) &&
                      layout_reserve(&total, threads, places * sizeof(float), &plan->rows) &&
                      layout_reserve(&total, heads, places * sizeof(double), &plan->scores);
    plan->total = total;
    return fits;
}

int bounded_observe_bytes(const struct bounded_options *o, size_t *out, struct error *err)
{
    struct plan plan;
    *out = 0;
    if (most_places(o) == 0)
        return 0;
    if (!plan_make(o, &plan))
        return error_set(err, ERROR_RESOURCE, "observing %lld keys takes more bytes than can be counted",
                         (long long)most_places(o));
    *out = plan.total;
    for (int i = 0; i < o->layers; i++)
        if (policy_observe(&o->specs[i]) > 0)
            *out += (size_t)(o->kv_heads * places_of(o, &o->specs[i])) * sizeof(double);
    return 0;
}

int bounded_observe_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    struct plan plan;
    if (most_places(o) == 0)
        return 0;
    if (!plan_make(o, &plan) || !(b->observed = o->device->alloc(plan.total, "the attention that keys get", err)))
        return -1;
    for (int i = 0; i < o->layers; i++) {
        struct bounded_layer *layer = &b->layers[i];
        if (policy_observe(&layer->spec) == 0)
            continue;
        const size_t bytes = (size_t)(o->kv_heads * places_of(o, &o->specs[i])) * sizeof(double);
        if (!(layer->received = o->device->alloc(bytes, "the attention that a layer's keys got", err)))
            return -1;
    }
    return 0;
}

void bounded_observe_free(struct bounded *b)
{
    for (int i = 0; i < b->options.layers; i++)
        b->options.device->free(b->layers[i].received);
    b->options.device->free(b->observed);
}

void bounded_observe_reset(struct bounded_layer *layer)
{
    const int64_t places = layer->slots.shape.capacity + layer->near.shape.capacity;
    memset(layer->received, 0, (size_t)(layer->near.shape.kv_heads * places) * sizeof *layer->received);
}

/* ---- one pass ------------------------------------------------------------------------------------------- */

struct pass {
    struct bounded *bounded;
    const struct bounded_layer *layer;
    const struct bounded_queries *queries;
    struct plan plan;
    int64_t slots, near, places; /* keys that there are, and places of a kv head's sums */
    int64_t stripes;
    int64_t from;           /* queries from this position on are observed */
    struct stretch stretch; /* of this rank's queries, and the row of its first */
    int64_t row;
};

static float *stripe_at(const struct pass *p, int kv_head, int64_t key)
{
    const int64_t dim = p->bounded->options.dim;
    const int64_t of_head = i64_round_up(most_places(&p->bounded->options), STRIPE) * dim;
    return (float *)(void *)(p->bounded->observed + p->plan.keys) + kv_head * of_head +
           key / STRIPE * STRIPE * dim + key % STRIPE;
}

static double *sums_at(const struct pass *p, int thread, int kv_head)
{
    const struct bounded_options *o = &p->bounded->options;
    return (double *)(void *)(p->bounded->observed + p->plan.sums) +
           ((int64_t)thread * o->kv_heads + kv_head) * i64_round_up(most_places(o), STRIPE);
}

/* Item: a stripe of one kv head's keys, rotated: slots by their index, near ones by their position. */
static void rotate_item(void *context, int64_t item, int thread)
{
    const struct pass *p = context;
    const struct bounded_options *o = &p->bounded->options;
    const int head = (int)(item / p->stripes);
    const int64_t first = item % p->stripes * STRIPE, end = i64_min(first + STRIPE, p->slots + p->near);
    const size_t row_bytes = (size_t)o->dim * dtype_size(o->kernel->dtype);
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], key[ATTN_MAX_DIM];
    (void)thread;
    for (int64_t i = first; i < end; i++) {
        const bool slot = i < p->slots;
        const int64_t position = slot ? i : p->layer->near.first + i - p->slots;
        const char *kept = p->bounded->kept_keys + (size_t)(head * p->bounded->most_kept + i) * row_bytes;
        row_to_f32(o->kernel->dtype, slot ? kept : near_keys(&p->layer->near, head, position), key, o->dim);
        for (int e = 0; p->layer->key_offset && e < o->dim; e++)
            key[e] += p->layer->key_offset[head * o->dim + e];
        rope_angles(p->queries->rope, position, cosines, sines);
        rope_rotate(p->queries->rope, cosines, sines, key, key, o->dim, 1.0f);
        for (int e = 0; e < o->dim; e++)
            stripe_at(p, head, i)[e * STRIPE] = key[e];
    }
}

/* scores [first .. end) += q . keys of one stripe. */
static void score_keys(const float *q, const float *stripe, int dim, int64_t n, float *scores)
{
    memset(scores, 0, (size_t)n * sizeof *scores);
    for (int e = 0; e < dim; e++)
        for (int64_t i = 0; i < n; i++)
            scores[i] += q[e] * stripe[e * STRIPE + i];
}

/* Scores of the keys first .. end - 1 by one query head, turned to `position`. */
static void score_run(const struct pass *p, int kv_head, const float *q, int64_t position, struct stretch keys,
                      float *scores)
{
    const int dim = p->bounded->options.dim;
    float cosines[ATTN_MAX_DIM / 2], sines[ATTN_MAX_DIM / 2], turned[ATTN_MAX_DIM];
    rope_angles(p->queries->rope, position, cosines, sines);
    rope_rotate(p->queries->rope, cosines, sines, q, turned, dim, p->queries->scale);
    for (int64_t i = keys.first; i < keys.end;) {
        const int64_t end = i64_min(keys.end, (i / STRIPE + 1) * STRIPE);
        score_keys(turned, stripe_at(p, kv_head, i), dim, end - i, scores + i);
        i = end;
    }
}

/* sums [slots, then near tokens] += the softmax of scores [n], shared out over the heads of a group. Slots count in
 * it for as many tokens as they do in attention. */
static void add_attention(const struct pass *p, float *scores, int64_t n, double *sums)
{
    const int64_t capacity = p->layer->slots.shape.capacity;
    const float weight = p->layer->spec.weigh ? logf((float)p->layer->spec.rate) : 0;
    float largest = -FLT_MAX;
    double total = 0;
    for (int64_t i = 0; i < p->slots; i++)
        scores[i] += weight;
    for (int64_t i = 0; i < n; i++)
        largest = scores[i] > largest ? scores[i] : largest;
    for (int64_t i = 0; i < n; i++)
        total += (double)expf(scores[i] - largest);
    const double share = 1 / (total * p->bounded->group);
    for (int64_t i = 0; i < n; i++)
        sums[i < p->slots ? i : capacity + i - p->slots] += share * (double)expf(scores[i] - largest);
}

/* Item: a few query tokens of one kv head. */
static void observe_item(void *context, int64_t item, int thread)
{
    const struct pass *p = context;
    const struct bounded *b = p->bounded;
    const struct bounded_options *o = &b->options;
    const int head = (int)(item % o->kv_heads);
    const int64_t first = p->stretch.first + item / o->kv_heads * ITEM_ROWS;
    float *scores =
        (float *)(void *)(b->observed + p->plan.rows) + (int64_t)thread * i64_round_up(most_places(o), STRIPE);
    for (int64_t at = first; at < i64_min(first + ITEM_ROWS, p->stretch.end); at++) {
        const int64_t near_first = policy_near_first(&p->layer->spec, at, b->first);
        const struct kept_view view = bounded_kept_view(p->layer, p->slots, at, near_first);
        const int64_t seen = p->slots + at + 1 - p->layer->near.first;
        for (int g = 0; g < b->group; g++) {
            const float *q = p->queries->q + (p->row + at - p->stretch.first) * p->queries->stride +
                             (int64_t)(head * b->group + g) * o->dim;
            score_run(p, head, q, view.position, (struct stretch){0, p->slots}, scores);
            score_run(p, head, q, at, (struct stretch){p->slots, seen}, scores);
            add_attention(p, scores, seen, sums_at(p, thread, head));
        }
    }
}

static void run_items(const struct pass *p, int64_t items, void (*work)(void *, int64_t, int))
{
    const struct bounded_options *o = &p->bounded->options;
    const struct pool_job job = {items, work, (void *)p, o->poll, o->poll_context};
    if (items > 0)
        pool_run(o->pool, &job);
}

/* The observed ones of this rank's queries. */
static void observe_block(struct pass *p)
{
    const struct bounded *b = p->bounded;
    const struct zigzag block = zigzag_block(b->first, b->end, b->options.group->rank, b->options.group->size);
    int64_t row = 0;
    for (int part = 0; part < 2; part++) {
        const int64_t first = i64_max(block.first[part], p->from), end = block.end[part];
        p->stretch = (struct stretch){first, end};
        p->row = row + first - block.first[part];
        if (first < end)
            run_items(p, i64_ceil_div(end - first, ITEM_ROWS) * b->options.kv_heads, observe_item);
        row += end - block.first[part];
    }
}

/* The sums of all threads and ranks, in the first thread's. */
static int add_up(const struct pass *p, struct error *err)
{
    const struct bounded_options *o = &p->bounded->options;
    for (int head = 0; head < o->kv_heads; head++) {
        double *sums = sums_at(p, 0, head);
        for (int thread = 1; thread < pool_threads(o->pool); thread++)
            for (int64_t i = 0; i < p->places; i++)
                sums[i] += sums_at(p, thread, head)[i];
        if (o->group->size > 1 &&
            comm_check(MPI_Allreduce(MPI_IN_PLACE, sums, (int)p->places, MPI_DOUBLE, MPI_SUM, o->group->mpi),
                       "adding up what attention keys get", err) < 0)
            return -1;
    }
    return 0;
}

int bounded_observe(struct bounded *b, struct bounded_layer *layer, const struct bounded_queries *queries,
                    struct error *err)
{
    const struct policy *policy = policy_of(layer->spec.kind);
    const struct bounded_options *o = &b->options;
    struct pass p = {.bounded = b,
                     .layer = layer,
                     .queries = queries,
                     .slots = layer->slots.count,
                     .near = b->end - layer->near.first,
                     .places = layer->slots.shape.capacity + layer->near.shape.capacity,
                     .from = i64_max(b->first, b->end - policy_observe(&layer->spec))};
    plan_make(o, &p.plan);
    p.stripes = i64_ceil_div(p.slots + p.near, STRIPE);
    for (int thread = 0; thread < pool_threads(o->pool); thread++)
        for (int head = 0; head < o->kv_heads; head++)
            memset(sums_at(&p, thread, head), 0, (size_t)p.places * sizeof(double));
    run_items(&p, p.stripes * o->kv_heads, rotate_item);
    observe_block(&p);
    if (add_up(&p, err) != 0)
        return -1;
    for (int head = 0; head < o->kv_heads; head++) {
        double *received = layer->received + head * p.places;
        for (int64_t i = 0; i < p.places; i++)
            received[i] = sums_at(&p, 0, head)[i] + (policy->accumulates ? received[i] : 0);
    }
    return 0;
}

/* ---- what the rule of keeping reads, and leaves --------------------------------------------------------- */

void bounded_observed(struct bounded *b, const struct bounded_layer *layer, struct keep *keep)
{
    const int64_t capacity = layer->slots.shape.capacity, places = capacity + layer->near.shape.capacity;
    struct plan plan;
    plan_make(&b->options, &plan);
    double *scores = (double *)(void *)(b->observed + plan.scores);
    keep->scores = scores;
    keep->stride = places;
    for (int head = 0; head < keep->kv_heads; head++) {
        const double *received = layer->received + head * places;
        memcpy(scores + head * places, received, (size_t)keep->slots * sizeof *scores);
        memcpy(scores + head * places + keep->slots, received + capacity, (size_t)keep->leaving * sizeof *scores);
    }
}

void bounded_observe_kept(struct bounded_layer *layer, const struct keep *keep)
{
    const int64_t capacity = layer->slots.shape.capacity, places = capacity + layer->near.shape.capacity;
    for (int head = 0; head < keep->kv_heads; head++) {
        double *received = layer->received + head * places;
        const struct slot_recipe *recipes = keep->recipes + (size_t)head * (size_t)layer->spec.slots;
        for (int64_t i = 0; i < keep->count; i++)
            received[i] = keep->scores[head * places + recipes[i].first];
        memmove(received + capacity, received + capacity + keep->leaving,
                (size_t)(places - capacity - keep->leaving) * sizeof *received);
        memset(received + places - keep->leaving, 0, (size_t)keep->leaving * sizeof *received);
    }
}
