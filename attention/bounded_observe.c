/* Observation: how much attention slots and near tokens get, for the policies that keep by it.
 *
 * A query's attention is its softmax over all that it sees; what a key gets is the sum of these over queries, and
 * over the query heads of its kv head unless these are told apart. It is asked of the kernel for each tile of
 * queries as soon as its log-sum-exp is known (attention/kernel.h), in whole units: threads add to the same sums in
 * any order, each rank sums over its own queries, and what candidates got on all ranks is added up when one of them
 * has to leave: 8 bytes a candidate, where sending queries round would take heads x dim x 4 a query.
 */
#include "attention/bounded_parts.h"

#include <string.h>

/* ---- sizes and life ------------------------------------------------------------------------------------- */

static bool tells_heads_apart(const struct policy_spec *spec)
{
    return policy_past(spec) == PAST_BLOCKS;
}

/* Sums that a kv head has. */
static int classes_of(const struct bounded_options *o, const struct policy_spec *spec)
{
    return tells_heads_apart(spec) ? o->heads / o->kv_heads : 1;
}

/* Places of a sum: slots, then near tokens. */
static int64_t places_of(const struct bounded_options *o, const struct policy_spec *spec)
{
    return spec->slots + bounded_near_capacity(o, spec);
}

static size_t layer_bytes(const struct bounded_options *o, const struct policy_spec *spec)
{
    return (size_t)(o->kv_heads * classes_of(o, spec) * places_of(o, spec)) * sizeof(int64_t);
}

/* The largest of all observed layers: sums of all kv heads, places, and a run of a tile's sums. */
struct largest {
    int64_t sums, candidates, run;
    int classes;
};

static struct largest find_largest(const struct bounded_options *o)
{
    struct largest most = {0};
    for (int i = 0; i < o->layers; i++) {
        const struct policy_spec *spec = &o->specs[i];
        if (policy_observe(spec) == 0)
            continue;
        const int classes = classes_of(o, spec);
        most.classes = classes > most.classes ? classes : most.classes;
        most.sums = i64_max(most.sums, o->kv_heads * classes * places_of(o, spec));
        most.candidates = i64_max(most.candidates, o->kv_heads * places_of(o, spec));
        most.run = i64_max(most.run, i64_round_up(places_of(o, spec), ATTN_KEY_TILE));
    }
    return most;
}

/* Bytes of what the layers share. */
struct parts {
    size_t run; /* a thread's */
    size_t totals, scores;
};

static struct parts find_parts(const struct bounded_options *o)
{
    const struct largest most = find_largest(o);
    return (struct parts){
        .run = (size_t)(most.classes * most.run) * sizeof(int64_t),
        .totals = (size_t)most.sums * sizeof(int64_t),
        .scores = (size_t)most.candidates * sizeof(double),
    };
}

size_t bounded_observe_bytes(const struct bounded_options *o)
{
    const struct parts parts = find_parts(o);
    size_t total = (size_t)pool_threads(o->pool) * parts.run + parts.totals + parts.scores;
    for (int i = 0; i < o->layers; i++)
        if (policy_observe(&o->specs[i]) > 0)
            total += layer_bytes(o, &o->specs[i]);
    return total;
}

int bounded_observe_create(struct bounded *b, struct error *err)
{
    const struct bounded_options *o = &b->options;
    const struct parts parts = find_parts(o);
    struct bounded_observe *s = &b->observe;
    if (parts.run == 0)
        return 0;
    s->run = parts.run / sizeof(int64_t);
    if (!(s->runs = o->device->alloc((size_t)pool_threads(o->pool) * parts.run, "what tiles' keys get", err)) ||
        !(s->totals = o->device->alloc(parts.totals, "what candidates got", err)) ||
        !(s->scores = o->device->alloc(parts.scores, "scores of candidates", err)))
        return -1;
    for (int i = 0; i < o->layers; i++) {
        struct bounded_layer *layer = &b->layers[i];
        if (policy_observe(&layer->spec) == 0)
            continue;
        layer->classes = classes_of(o, &layer->spec);
        layer->received = o->device->alloc(layer_bytes(o, &layer->spec), "what a layer's keys got", err);
        if (!layer->received)
            return -1;
        bounded_observe_reset(layer);
    }
    return 0;
}

void bounded_observe_free(struct bounded *b)
{
    const struct device *device = b->options.device;
    for (int i = 0; i < b->options.layers; i++)
        device->free((void *)b->layers[i].received);
    device->free(b->observe.runs);
    device->free(b->observe.totals);
    device->free(b->observe.scores);
}

/* ---- the sums of a layer -------------------------------------------------------------------------------- */

static int64_t places(const struct bounded_layer *layer)
{
    return layer->slots.shape.capacity + layer->near.shape.capacity;
}

static int sums(const struct bounded_layer *layer)
{
    return layer->near.shape.kv_heads * layer->classes;
}

static _Atomic int64_t *received_at(const struct bounded_layer *layer, int sum)
{
    return layer->received + sum * places(layer);
}

void bounded_observe_reset(struct bounded_layer *layer)
{
    memset((void *)layer->received, 0, (size_t)(sums(layer) * places(layer)) * sizeof(int64_t));
}

void bounded_observe_begin(struct bounded_layer *layer)
{
    if (!policy_of(layer->spec.kind)->accumulates)
        bounded_observe_reset(layer);
}

/* The keys of whole tiles that the rows see. */
static struct stretch keys_seen(const struct attn_tile *rows)
{
    struct stretch seen = {INT64_MAX, 0};
    for (int r = 0; r < rows->rows; r++)
        if (rows->spans[r].first < rows->spans[r].end) {
            seen.first = i64_min(seen.first, rows->spans[r].first / ATTN_KEY_TILE * ATTN_KEY_TILE);
            seen.end = i64_max(seen.end, i64_round_up(rows->spans[r].end, ATTN_KEY_TILE));
        }
    return seen;
}

void bounded_observe_run(struct bounded *b, const struct bounded_layer *layer, const struct attn_tile *rows,
                         const struct bounded_run *run)
{
    const struct stretch seen = keys_seen(rows);
    const int64_t stride = i64_round_up(places(layer), ATTN_KEY_TILE);
    int64_t *got = b->observe.runs + (size_t)run->thread * b->observe.run;
    if (seen.first >= seen.end)
        return;
    for (int class = 0; class < layer->classes; class ++)
        memset(got + class * stride + seen.first, 0, (size_t)(seen.end - seen.first) * sizeof *got);
    attn_observe(b->options.kernel, rows, run->packed,
                 &(struct attn_received){run->lse, got, stride, layer->classes}, b->scratch[run->thread].kernel);
    for (int class = 0; class < layer->classes; class ++) {
        _Atomic int64_t *to = received_at(layer, run->kv_head * layer->classes + class) + run->place;
        for (int64_t i = seen.first; i < seen.end; i++)
            if (got[class * stride + i] != 0)
                atomic_fetch_add_explicit(&to[i], got[class * stride + i] * run->counts, memory_order_relaxed);
    }
}

/* ---- what the rules read, and leave --------------------------------------------------------------------- */

const int64_t *bounded_observed(struct bounded *b, const struct bounded_layer *layer, struct stretch leaving,
                                struct error *err)
{
    const int64_t slots = layer->slots.count, n = leaving.end - leaving.first;
    const int64_t near = layer->slots.shape.capacity + leaving.first - layer->near.first;
    int64_t *totals = b->observe.totals;
    for (int sum = 0; sum < sums(layer); sum++, totals += slots + n) {
        const int64_t *received = (const int64_t *)received_at(layer, sum);
        memcpy(totals, received, (size_t)slots * sizeof *totals);
        memcpy(totals + slots, received + near, (size_t)n * sizeof *totals);
    }
    totals = b->observe.totals;
    return comm_check(MPI_Allreduce(MPI_IN_PLACE, totals, (int)(sums(layer) * (slots + n)), MPI_INT64_T, MPI_SUM,
                                    b->options.group->mpi),
                      "adding up what attention keys get", err) < 0
               ? NULL
               : totals;
}

int bounded_observe_score(struct bounded *b, const struct bounded_layer *layer, int64_t first, struct keep *keep,
                          struct error *err)
{
    const int64_t *totals = bounded_observed(b, layer, (struct stretch){first, first + keep->leaving}, err);
    if (!totals)
        return -1;
    keep->scores = b->observe.scores;
    keep->stride = keep->slots + keep->leaving;
    for (int64_t i = 0; i < keep->kv_heads * keep->stride; i++)
        b->observe.scores[i] = (double)totals[i] * ATTN_UNIT / b->heads_per_kv;
    return 0;
}

void bounded_observe_kept(struct bounded_layer *layer, int64_t first, const struct keep *keep)
{
    const int64_t near = layer->slots.shape.capacity + first - layer->near.first;
    for (int head = 0; head < keep->kv_heads; head++) {
        int64_t *received = (int64_t *)received_at(layer, head);
        const struct slot_recipe *recipes = keep->recipes + (size_t)head * (size_t)layer->spec.slots;
        for (int64_t i = 0; i < keep->count; i++) { /* rising, so that no place is overwritten before it is read */
            const int64_t candidate = recipes[i].first;
            received[i] = received[candidate < keep->slots ? candidate : near + candidate - keep->slots];
        }
    }
}

void bounded_observe_drop(struct bounded_layer *layer, int64_t leave)
{
    const int64_t gone = leave - layer->near.first, left = layer->near.shape.capacity - gone;
    for (int sum = 0; sum < sums(layer) && gone > 0; sum++) {
        int64_t *near = (int64_t *)received_at(layer, sum) + layer->slots.shape.capacity;
        memmove(near, near + gone, (size_t)left * sizeof *near);
        memset(near + left, 0, (size_t)gone * sizeof *near);
    }
}
