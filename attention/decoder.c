#include "attention/decoder.h"

#include <math.h>
#include <stdlib.h>

#include "attention/decode.h"
#include "attention/layout.h"
#include "attention/rows.h"

/* All memory of a decoder is one block; here is where its parts begin. */
struct decoder_plan {
    size_t angles;  /* [DECODE_OFFSETS][cosine, sine][dim] f32, by element */
    size_t q;       /* [heads][q, perp(q)][dim] f32, scaled */
    size_t states;  /* [stretches] x (o [heads][dim], m [heads], l [heads]) f32 */
    size_t results; /* [ranks] x (o [heads][dim], lse [heads]) f32 */
    size_t scratch; /* [threads] x scratch_bytes */
    size_t scratch_bytes, total;
};

struct decoder {
    struct decoder_options options;
    struct decoder_plan plan;
    char *memory;
    int heads_per_kv; /* query heads of a kv head */
    const struct decode_variant *variant;
    const struct rope *rope; /* that the tables of angles are of, as it was at its revision */
    int64_t rope_revision;
};

/* What a thread needs for a stretch. */
struct decoder_scratch {
    uint8_t offsets[DECODE_STRETCH];
    float cosine[ATTN_MAX_DIM], sine[ATTN_MAX_DIM];
    float scores[]; /* [heads][DECODE_STRIDE]; behind it a and b: [heads][2][dim] */
};

/* ---- life ----------------------------------------------------------------------------------------------- */

static bool plan_make(const struct decoder_options *o, struct decoder_plan *plan)
{
    const size_t heads = (size_t)o->heads, dim = (size_t)o->dim;
    const size_t stretches = (size_t)i64_ceil_div(o->max_keys, DECODE_STRETCH) + DECODER_PARTS;
    size_t total = 0;
    *plan = (struct decoder_plan){0};
    plan->scratch_bytes = sizeof(struct decoder_scratch) + heads * (DECODE_STRIDE + 2 * dim) * sizeof(float);
    plan->scratch_bytes = (plan->scratch_bytes + ATTN_ALIGN - 1) / ATTN_ALIGN * ATTN_ALIGN;
    bool fits = layout_reserve(&total, DECODE_OFFSETS, 2 * dim * sizeof(float), &plan->angles) &&
                layout_reserve(&total, heads, 2 * dim * sizeof(float), &plan->q) &&
                layout_reserve(&total, stretches, heads * (dim + 2) * sizeof(float), &plan->states) &&
                layout_reserve(&total, (size_t)o->group->size, heads * (dim + 1) * sizeof(float), &plan->results) &&
                layout_reserve(&total, (size_t)pool_threads(o->pool), plan->scratch_bytes, &plan->scratch);
    plan->total = total;
    return fits;
}

static int check_options(const struct decoder_options *o, struct decoder_plan *plan, struct error *err)
{
    if (attn_check_heads(o->heads, o->kv_heads, o->dim, err) < 0)
        return -1;
    if (o->max_keys < 0 || !plan_make(o, plan))
        return error_set(err, ERROR_RESOURCE, "decoding over %lld keys takes too many bytes to be counted",
                         (long long)o->max_keys);
    return 0;
}

int decoder_bytes(const struct decoder_options *options, size_t *out, struct error *err)
{
    struct decoder_plan plan = {0};
    if (check_options(options, &plan, err) < 0)
        return -1;
    *out = plan.total;
    return 0;
}

struct decoder *decoder_create(const struct decoder_options *options, struct error *err)
{
    struct decoder_plan plan;
    if (check_options(options, &plan, err) < 0)
        return NULL;
    struct decoder *decoder = calloc(1, sizeof *decoder);
    if (!decoder) {
        error_set(err, ERROR_RESOURCE, "no memory for the description of a decoder");
        return NULL;
    }
    decoder->options = *options;
    decoder->plan = plan;
    decoder->heads_per_kv = options->heads / options->kv_heads;
    decoder->variant = decode_choose();
    decoder->memory = options->device->alloc(plan.total, "the buffers of decoding", err);
    if (!decoder->memory) {
        free(decoder);
        return NULL;
    }
    return decoder;
}

void decoder_free(struct decoder *decoder)
{
    if (!decoder)
        return;
    decoder->options.device->free(decoder->memory);
    free(decoder);
}

static float *floats_at(const struct decoder *decoder, size_t at)
{
    return (float *)(decoder->memory + at);
}

/* ---- angles by element ---------------------------------------------------------------------------------- */

static const float zeros[ATTN_MAX_DIM / 2];
static const float ones[ATTN_MAX_DIM / 2] = {[0 ... ATTN_MAX_DIM / 2 - 1] = 1.0f};

static void use_rope(struct decoder *decoder, const struct rope *rope)
{
    const int dim = decoder->options.dim;
    float *angles = floats_at(decoder, decoder->plan.angles);
    if (decoder->rope == rope && decoder->rope_revision == rope_revision(rope))
        return;
    decoder->rope = rope;
    decoder->rope_revision = rope_revision(rope);
    for (int64_t offset = 0; offset < DECODE_OFFSETS; offset++, angles += 2 * dim)
        rope_element_angles(rope, offset, dim, angles, angles + dim);
}

/* ---- one rank's parts ----------------------------------------------------------------------------------- */

/* One call of decoder_attend, as its work items see it. */
struct call {
    struct decoder *decoder;
    const struct decoder_query *query;
    const struct decoder_part *parts;
    int n_parts;
    int64_t stretches[DECODER_PARTS + 1]; /* part i has the stretches [i] .. [i + 1] */
    float *o, *lse;                       /* [heads][dim], [heads]: what this rank's parts say */
};

/* State of all heads over one stretch. */
static struct attn_state stretch_state(const struct decoder *decoder, int64_t stretch)
{
    const size_t heads = (size_t)decoder->options.heads, dim = (size_t)decoder->options.dim;
    float *o = floats_at(decoder, decoder->plan.states) + (size_t)stretch * heads * (dim + 2);
    return (struct attn_state){.o = o, .m = o + heads * dim, .l = o + heads * (dim + 1)};
}

/* The row of key or value `index` of a kv head. */
static const void *row_at(const struct decoder *decoder, const struct decoder_part *part, const void *rows,
                          int kv_head, int64_t index)
{
    const size_t row_bytes = (size_t)decoder->options.dim * dtype_size(decoder->options.dtype);
    return (const char *)rows + (size_t)kv_head * part->head_stride_bytes + (size_t)index * row_bytes;
}

static int64_t position_at(const struct decoder_part *part, int64_t index)
{
    return part->positions ? part->positions[index] : part->first_position + index * part->step;
}

/* q and perp(q), scaled, of every head. Where nothing turns, perp is never used: the sine is 0 there. */
static void prepare_query(const struct call *call)
{
    const struct decoder_options *o = &call->decoder->options;
    const float scale = call->query->scale * ATTN_LOG2_E;
    float *q = floats_at(call->decoder, call->decoder->plan.q);
    for (int head = 0; head < o->heads; head++, q += 2 * o->dim) {
        const float *raw = call->query->q + (size_t)head * (size_t)o->dim;
        rope_rotate(call->query->rope, ones, zeros, raw, q, o->dim, scale);
        rope_rotate(call->query->rope, zeros, ones, raw, q + o->dim, o->dim, scale);
    }
}

/* How many of the n keys from `first` on are one run; their offsets from its first. */
static int run_length(const struct decoder_part *part, int64_t first, int n, uint8_t *offsets)
{
    const int64_t base = position_at(part, first);
    int i = 0;
    for (; i < n && i < DECODE_RUN; i++) {
        const int64_t offset = position_at(part, first + i) - base;
        if (offset >= DECODE_OFFSETS)
            break;
        offsets[i] = (uint8_t)offset;
    }
    return i;
}

/* Scores of all heads for a run of a part's keys, the first of them the `at`th of its stretch. */
static void score_run(const struct call *call, const struct decoder_part *part, struct decoder_scratch *scratch,
                      struct attn_span run, int at)
{
    const struct decoder *decoder = call->decoder;
    const struct decoder_options *o = &decoder->options;
    float *q = scratch->scores + (size_t)o->heads * DECODE_STRIDE;
    rope_element_angles(decoder->rope, part->query_position - position_at(part, run.first), decoder->options.dim,
                        scratch->cosine, scratch->sine);
    decoder->variant->turn(&(struct decode_turn){.q = floats_at(decoder, decoder->plan.q),
                                                 .cosines = scratch->cosine,
                                                 .sines = scratch->sine,
                                                 .out = q,
                                                 .rows = o->heads,
                                                 .dim = o->dim});
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        const size_t row = (size_t)kv_head * (size_t)decoder->heads_per_kv;
        decoder->variant->scores[o->dtype](
            &(struct decode_run){.keys = row_at(decoder, part, part->keys, kv_head, run.first),
                                 .values = row_at(decoder, part, part->values, kv_head, run.first),
                                 .offsets = scratch->offsets,
                                 .angles = floats_at(decoder, decoder->plan.angles),
                                 .key_offset = key_offset_of(part->key_offset, kv_head, o->dim),
                                 .q = q + row * 2 * (size_t)o->dim,
                                 .scores = scratch->scores + row * DECODE_STRIDE + at,
                                 .n = (int)(run.end - run.first),
                                 .rows = decoder->heads_per_kv,
                                 .dim = o->dim});
    }
}

/* The scores of a stretch and its values become its state. */
static void sum_stretch(const struct call *call, const struct decoder_part *part, struct decoder_scratch *scratch,
                        struct attn_span keys, int64_t stretch)
{
    const struct decoder *decoder = call->decoder;
    const struct decoder_options *o = &decoder->options;
    const struct attn_state state = stretch_state(decoder, stretch);
    for (int kv_head = 0; kv_head < o->kv_heads; kv_head++) {
        const size_t row = (size_t)kv_head * (size_t)decoder->heads_per_kv;
        decoder->variant->sums[o->dtype](
            &(struct decode_sums){.values = row_at(decoder, part, part->values, kv_head, keys.first),
                                  .scores = scratch->scores + row * DECODE_STRIDE,
                                  .state = {state.o + row * (size_t)o->dim, state.m + row, state.l + row},
                                  .n = (int)(keys.end - keys.first),
                                  .rows = decoder->heads_per_kv,
                                  .dim = o->dim});
    }
}

static int part_of(const struct call *call, int64_t stretch)
{
    int part = 0;
    while (stretch >= call->stretches[part + 1])
        part++;
    return part;
}

/* All heads over one stretch. */
static void stretch_item(void *context, int64_t item, int thread)
{
    const struct call *call = context;
    const struct decoder *decoder = call->decoder;
    struct decoder_scratch *scratch =
        (void *)(decoder->memory + decoder->plan.scratch + (size_t)thread * decoder->plan.scratch_bytes);
    const int index = part_of(call, item);
    const struct decoder_part *part = &call->parts[index];
    const int64_t first = (item - call->stretches[index]) * DECODE_STRETCH;
    const int n = (int)i64_min(DECODE_STRETCH, part->n - first);
    for (int at = 0, run; at < n; at += run) {
        run = run_length(part, first + at, n - at, scratch->offsets);
        score_run(call, part, scratch, (struct attn_span){first + at, first + at + run}, at);
    }
    sum_stretch(call, part, scratch, (struct attn_span){first, first + n}, item);
}

/* One head's states of all stretches, in their order, become its result. */
static void head_item(void *context, int64_t item, int thread)
{
    const struct call *call = context;
    const int dim = call->decoder->options.dim;
    const int64_t stretches = call->stretches[call->n_parts];
    float *o = call->o + item * dim, m = -INFINITY, l = 0;
    (void)thread;
    for (int64_t s = 0; s < stretches; s++)
        m = fmaxf(m, stretch_state(call->decoder, s).m[item]);
    memset(o, 0, (size_t)dim * sizeof *o);
    for (int64_t s = 0; s < stretches; s++) {
        const struct attn_state state = stretch_state(call->decoder, s);
        const float *add = state.o + item * dim;
        const float weight = exp2f(state.m[item] - m) * call->parts[part_of(call, s)].weight;
        l += state.l[item] * weight;
        for (int e = 0; e < dim; e++)
            o[e] += add[e] * weight;
    }
    const struct attn_state total = {o, &m, &l};
    attn_state_finish(&total, 1, dim, &call->lse[item]);
}

/* ---- all ranks ------------------------------------------------------------------------------------------ */

/* Every rank gets every rank's result and merges them in the order of ranks: the same bits everywhere. */
static int merge_ranks(const struct decoder *decoder, float *results, size_t floats, struct error *err)
{
    const struct decoder_options *o = &decoder->options;
    const size_t o_floats = (size_t)o->heads * (size_t)o->dim;
    if (o->group->size == 1)
        return 0;
    int code = MPI_Allgather(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, results, (int)floats, MPI_FLOAT, o->group->mpi);
    if (comm_check(code, "merging one token's attention", err) < 0)
        return -1;
    for (int r = 1; r < o->group->size; r++) {
        const float *other = results + (size_t)r * floats;
        attn_merge(results, results + o_floats, other, other + o_floats, o->heads, o->dim);
    }
    return 0;
}

/* Deal the parts in stretches. */
static int count_stretches(struct call *call, struct error *err)
{
    const int64_t max_keys = call->decoder->options.max_keys;
    int64_t keys = 0;
    if (call->n_parts > DECODER_PARTS)
        return error_set(err, ERROR_INTERNAL, "decoding over %d parts; %d can be had", call->n_parts,
                         DECODER_PARTS);
    for (int i = 0; i < call->n_parts; i++) {
        keys += call->parts[i].n;
        call->stretches[i + 1] = call->stretches[i] + i64_ceil_div(call->parts[i].n, DECODE_STRETCH);
    }
    if (keys > max_keys)
        return error_set(err, ERROR_INTERNAL, "decoding over %lld keys, but the decoder was made for %lld",
                         (long long)keys, (long long)max_keys);
    return 0;
}

static void run_items(struct call *call, int64_t items, void (*work)(void *, int64_t, int))
{
    const struct decoder_options *o = &call->decoder->options;
    const struct pool_job job = {items, work, call, o->poll, o->poll_context};
    pool_run(o->pool, &job);
}

int decoder_attend(struct decoder *decoder, const struct decoder_query *query, const struct decoder_part *parts,
                   int n_parts, struct error *err)
{
    const struct decoder_options *o = &decoder->options;
    const size_t o_floats = (size_t)o->heads * (size_t)o->dim, floats = o_floats + (size_t)o->heads;
    float *results = floats_at(decoder, decoder->plan.results);
    float *mine = results + (size_t)o->group->rank * floats;
    struct call call = {
        .decoder = decoder, .query = query, .parts = parts, .n_parts = n_parts, .o = mine, .lse = mine + o_floats};
    if (count_stretches(&call, err) < 0)
        return -1;
    if (n_parts > 0) {
        use_rope(decoder, query->rope);
        prepare_query(&call);
    }
    run_items(&call, call.stretches[n_parts], stretch_item);
    run_items(&call, o->heads, head_item);
    if (query->beside)
        attn_merge(call.o, call.lse, query->beside->o, query->beside->lse, o->heads, o->dim);
    if (merge_ranks(decoder, results, floats, err) < 0)
        return -1;
    memcpy(query->out, results, o_floats * sizeof *results);
    return 0;
}
