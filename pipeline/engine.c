#include "pipeline/engine.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"

/* Generated tokens between two reports of progress. */
enum { REPORT_EVERY = 8 };

struct engine {
    struct engine_options options;
    struct pool *pool;
    const struct attn_kernel *kernel, *host_kernel; /* the second beside a GPU */
    struct forward *forwards[ENGINE_SETTINGS];
    struct forward *forward;          /* that of the job in hand */
    struct forward *reference;        /* what it is held against, or NULL */
    float *logits, *reference_logits; /* [vocab] */
    int32_t *target, *unasked;        /* [segment]: of scores; likeliest tokens that nobody asks for */
    struct error poll_error;          /* a poll deep inside the forward pass cannot return one */
};

static void poll_hook(void *context)
{
    struct engine *engine = context;
    if (engine->poll_error.code == ERROR_NONE)
        engine->options.hooks.poll(engine->options.hooks.context, &engine->poll_error);
}

static struct forward_options forward_options(struct engine *engine, int setting)
{
    const struct engine_options *options = &engine->options;
    return (struct forward_options){
        .model = options->model,
        .group = options->group,
        .pool = engine->pool,
        .device = options->device,
        .kernel = engine->kernel,
        .host_kernel = engine->host_kernel,
        .policies = options->settings[setting].policies,
        .positions = options->settings[setting].positions,
        .max_generated = options->max_new,
        .scores = options->scores,
        .keys_on_host = options->keys_on_host,
        .segment = options->segment,
        .max_tokens = options->settings[setting].max_tokens,
        .poll = options->hooks.poll ? poll_hook : NULL,
        .poll_context = engine,
    };
}

/* What the host does beside a GPU it does in f32, which every CPU has. */
static int choose_kernels(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    if (options->device->host_visible)
        return (engine->kernel = attn_kernel_choose(options->dtype, NULL, err)) ? 0 : -1;
    engine->kernel = attn_kernel_cuda();
    return (engine->host_kernel = attn_kernel_choose(DTYPE_F32, NULL, err)) ? 0 : -1;
}

/* What single tokens are multiplied with: all in decode, the head where a receipt's probes ask for logits. */
static enum model_rows rows_of(const struct engine_options *options)
{
    return options->max_new > 0 ? MODEL_ROWS_ALL : options->n_settings > 1 ? MODEL_ROWS_HEAD : MODEL_ROWS_NONE;
}

/* A rank without memory for one must not leave the others waiting in the next. */
static int create_forwards(struct engine *engine, struct error *err)
{
    for (int i = 0; i < engine->options.n_settings; i++) {
        const struct forward_options forward = forward_options(engine, i);
        engine->forwards[i] = forward_create(&forward, err);
        if (comm_agree(engine->options.world, engine->forwards[i] ? 0 : -1, err) != 0)
            return -1;
    }
    return 0;
}

/* What needs no other rank. */
static int create_alone(struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    const size_t vocab = (size_t)options->model->shape.vocab;
    if (!(engine->logits = options->device->host_alloc(2 * vocab * sizeof *engine->logits, "logits", err)))
        return -1;
    engine->reference_logits = engine->logits + vocab;
    if (!(engine->target = malloc(2 * (size_t)options->segment * sizeof *engine->target)))
        return error_set(err, ERROR_RESOURCE, "no memory to score %" PRId64 " tokens", options->segment);
    engine->unasked = engine->target + options->segment;
    return (engine->pool = pool_create(options->threads, err)) ? choose_kernels(engine, err) : -1;
}

/* Ranks of a ring send each other packed keys, so all take one kernel: that of the slowest CPU among them, which
 * the others have too, as kernels are listed from the fastest on. */
static int share_kernel(struct engine *engine, struct error *err)
{
    const struct attn_kernel **kernel = engine->host_kernel ? &engine->host_kernel : &engine->kernel;
    int n;
    const struct attn_kernel *const *all = attn_kernels(&n);
    int64_t own = 0, slowest;
    while (all[own] != *kernel)
        own++;
    if (comm_max(engine->options.group, own, &slowest, err) != 0)
        return -1;
    return (*kernel = attn_kernel_choose(all[slowest]->dtype, all[slowest]->name, err)) ? 0 : -1;
}

static int pack_model(const struct engine *engine, struct error *err)
{
    const struct engine_options *options = &engine->options;
    const struct model_pack_options pack = {options->dtype,  options->scores,  engine->pool,     options->node,
                                            options->device, rows_of(options), options->streamed};
    return model_pack(options->model, &pack, err);
}

struct engine *engine_create(const struct engine_options *options, struct error *err)
{
    struct engine *engine = calloc(1, sizeof *engine);
    int status = engine ? 0 : error_set(err, ERROR_RESOURCE, "no memory for the engine");
    if (engine) {
        engine->options = *options;
        status = create_alone(engine, err);
    }
    if (comm_agree(options->world, status, err) == 0 &&
        comm_agree(options->world, share_kernel(engine, err), err) == 0 &&
        comm_agree(options->world, pack_model(engine, err), err) == 0 && create_forwards(engine, err) == 0)
        return engine;
    engine_free(engine);
    return NULL;
}

void engine_free(struct engine *engine)
{
    if (!engine)
        return;
    for (int i = 0; i < ENGINE_SETTINGS; i++)
        forward_free(engine->forwards[i]);
    pool_free(engine->pool);
    engine->options.device->host_free(engine->logits);
    free(engine->target);
    free(engine);
}

const char *engine_kernel_name(const struct engine *engine)
{
    const struct engine_options *options = &engine->options;
    return options->device->host_visible ? engine->kernel->name : attn_kernel_cuda_name(options->model->shape.dim);
}

const char *engine_transport_name(const struct engine *engine)
{
    return forward_transport_name(engine->forwards[0]);
}

struct ring_stats engine_ring_stats(const struct engine *engine)
{
    struct ring_stats total = {0};
    for (int i = 0; i < engine->options.n_settings; i++) {
        const struct ring_stats one = forward_ring_stats(engine->forwards[i]);
        total.pack_seconds += one.pack_seconds;
        total.attend_seconds += one.attend_seconds;
        total.transfer_seconds += one.transfer_seconds;
        total.wait_seconds += one.wait_seconds;
        total.hops += one.hops;
        total.bytes_sent += one.bytes_sent;
        total.passed_kv += one.passed_kv;
        total.passed_q += one.passed_q;
        total.predicted_kv_seconds += one.predicted_kv_seconds;
        total.predicted_q_seconds += one.predicted_q_seconds;
        total.round_seconds += one.round_seconds;
    }
    return total;
}

/* What has gone wrong in polls so far. */
static int check_polls(const struct engine *engine, struct error *err)
{
    if (engine->poll_error.code == ERROR_NONE)
        return 0;
    *err = engine->poll_error;
    return -1;
}

static int report(struct engine *engine, const struct job *job, int64_t generated, struct error *err)
{
    const struct engine_hooks *hooks = &engine->options.hooks;
    const struct job_progress progress = {job->id, forward_length(engine->forward) - generated, generated};
    if (check_polls(engine, err) != 0)
        return -1;
    return hooks->progress ? hooks->progress(hooks->context, &progress, err) : 0;
}

/* One way in which a job's tokens are read: by which forward pass, and where its scores go. */
struct reading {
    struct forward *forward;
    float *logprob; /* [n_tokens], or NULL: not asked */
    int32_t *top1;  /* the same */
    int64_t *most;  /* bytes of its memory on this rank, at its fullest */
};

/* The log-probabilities of a segment: the target of each token is the next one; the last token of all has none. */
static int score_segment(struct engine *engine, const struct job *job, struct stretch segment,
                         const struct reading *reading, struct error *err)
{
    const int64_t first = segment.first, n = segment.end - first;
    const bool last = segment.end == job->n_tokens;
    memcpy(engine->target, job->tokens + first + 1, (size_t)(last ? n - 1 : n) * sizeof *engine->target);
    if (last)
        engine->target[n - 1] = -1;
    const struct forward_scores scores = {engine->target, reading->logprob + first,
                                          reading->top1 ? reading->top1 + first : engine->unasked};
    return forward_score(reading->forward, &scores, err);
}

static int read_segment(struct engine *engine, const struct job *job, struct stretch segment,
                        const struct reading *reading, struct error *err)
{
    if (forward_segment(reading->forward, job->tokens + segment.first, segment.end - segment.first, err) != 0)
        return -1;
    *reading->most = i64_max(*reading->most, (int64_t)forward_resident(reading->forward));
    return reading->logprob ? score_segment(engine, job, segment, reading, err) : 0;
}

/* The probes whose logits the segment has: those of the tokens behind its own. */
static int probe_segment(struct engine *engine, const struct job *job, struct stretch segment,
                         struct job_result *result, struct error *err)
{
    const int64_t from = job->probes_from, n = job->n_tokens - from, probes = i64_min(job->probes, n - 1);
    for (int64_t k = 0; k < probes; k++) {
        const int64_t position = from + receipt_probe_position(k, probes, n);
        const int64_t index = position - 1 - segment.first;
        if (index < 0 || position > segment.end)
            continue;
        const struct receipt_probe probe = {engine->logits, engine->reference_logits,
                                            engine->options.model->shape.vocab, job->tokens[position], position};
        if (forward_logits(engine->forward, index, engine->logits, err) != 0 ||
            forward_logits(engine->reference, index, engine->reference_logits, err) != 0)
            return -1;
        receipt_add_probe(&result->receipt, &probe);
    }
    return 0;
}

/* Segment by segment, under the setting and where there is one under its reference, side by side: so only a
 * segment's logits are ever at hand. */
static int prefill(struct engine *engine, const struct job *job, struct job_result *result, struct error *err)
{
    struct receipt_memory *memory = &result->receipt.memory;
    const struct reading asked = {engine->forward, result->logprob, result->top1, &memory->bytes};
    const struct reading reference = {engine->reference, result->reference_logprob, NULL, &memory->reference_bytes};
    forward_reset(engine->forward);
    if (engine->reference)
        forward_reset(engine->reference);
    for (int64_t first = 0; first < job->n_tokens; first += engine->options.segment) {
        const struct stretch segment = {first, i64_min(first + engine->options.segment, job->n_tokens)};
        if (read_segment(engine, job, segment, &asked, err) != 0)
            return -1;
        if (engine->reference && (read_segment(engine, job, segment, &reference, err) != 0 ||
                                  probe_segment(engine, job, segment, result, err) != 0))
            return -1;
        if (report(engine, job, 0, err) != 0)
            return -1;
    }
    if (!engine->reference)
        return 0;
    memory->tokens = job->n_tokens;
    if (comm_sum(engine->options.group, memory->bytes, &memory->bytes, err) != 0)
        return -1;
    return comm_sum(engine->options.group, memory->reference_bytes, &memory->reference_bytes, err);
}

/* Rank 0 chooses, so that all ranks go on with the same token whatever their processors round to. A token below 0:
 * the logits allow no choice, and failure says why. */
static int choose_token(struct engine *engine, const struct job *job, struct job_result *result, int32_t *token,
                        struct error *err)
{
    const struct comm *group = engine->options.group;
    const struct sample_past past = {result->tokens, result->count, job->stream};
    if (group->rank == 0)
        *token = sample_token(&job->sampling, engine->logits, engine->options.model->shape.vocab, &past,
                              &result->failure);
    return comm_broadcast(group, token, sizeof *token, 0, err);
}

static int generate(struct engine *engine, const struct job *job, struct job_result *result, struct error *err)
{
    if (forward_next(engine->forward, engine->logits, err) != 0)
        return -1;
    for (;;) {
        int32_t token = -1;
        if (choose_token(engine, job, result, &token, err) != 0)
            return -1;
        if (token < 0)
            return 0;
        result->finish = tokenizer_is_end(engine->options.tokenizer, token) ? FINISH_END : FINISH_LENGTH;
        if (result->finish == FINISH_END)
            return 0;
        result->tokens[result->count++] = token;
        if (result->count == job->max_new)
            return 0;
        if (forward_step(engine->forward, token, engine->logits, err) != 0)
            return -1;
        if (result->count % REPORT_EVERY == 0 && report(engine, job, result->count, err) != 0)
            return -1;
    }
}

static int make_room(const struct job *job, struct job_result *result, struct error *err)
{
    const size_t n = (size_t)job->n_tokens;
    bool complete = true;
    if (job->kind == JOB_SCORE) {
        result->count = job->n_tokens - 1;
        complete =
            (result->logprob = malloc(n * sizeof *result->logprob)) &&
            (result->top1 = malloc(n * sizeof *result->top1)) &&
            (job->probes == 0 || (result->reference_logprob = malloc(n * sizeof *result->reference_logprob)));
    } else if (job->kind == JOB_GENERATE) {
        complete = (result->tokens = malloc((size_t)job->max_new * sizeof *result->tokens)) != NULL;
    }
    return complete ? 0
                    : error_set(err, ERROR_RESOURCE, "no memory for the result of %lld tokens",
                                (long long)job->n_tokens);
}

static void check_finite(const struct job *job, struct job_result *result)
{
    if (!isfinite(result->receipt.divergence.sum))
        error_set(&result->failure, ERROR_INTERNAL, "the divergence of a receipt is not finite");
    for (int64_t i = 0; job->kind == JOB_SCORE && i < result->count; i++)
        if (!isfinite(result->logprob[i]) ||
            (result->reference_logprob && !isfinite(result->reference_logprob[i]))) {
            error_set(&result->failure, ERROR_INTERNAL, "the log-probability of token %lld is not finite",
                      (long long)i + 1);
            return;
        }
}

/* The forward passes of a job: that of its setting, and of its reference. */
static int choose_forwards(struct engine *engine, const struct job *job, struct error *err)
{
    const int n = engine->options.n_settings;
    if (job->setting < 0 || job->setting >= n || job->reference < 0 || job->reference >= n ||
        (job->probes > 0 && job->reference == job->setting))
        return error_set(err, ERROR_INTERNAL, "a job for setting %d against %d, of %d", job->setting,
                         job->reference, n);
    engine->forward = engine->forwards[job->setting];
    engine->reference = job->probes > 0 ? engine->forwards[job->reference] : NULL;
    return 0;
}

int engine_run(struct engine *engine, const struct job *job, struct job_result *result, struct error *err)
{
    *result = (struct job_result){.id = job->id, .kind = job->kind};
    if (choose_forwards(engine, job, err) != 0)
        return -1;
    if (make_room(job, result, err) != 0)
        goto fail;
    const double begun = clock_seconds();
    if (prefill(engine, job, result, err) != 0)
        goto fail;
    const double prefilled = clock_seconds();
    result->forgotten = forward_forgotten(engine->forward);
    if (job->kind == JOB_GENERATE && generate(engine, job, result, err) != 0)
        goto fail;
    if (check_polls(engine, err) != 0) /* since the last report */
        goto fail;
    check_finite(job, result);
    result->prefill_seconds = prefilled - begun;
    result->decode_seconds = clock_seconds() - prefilled;
    return 0;
fail:
    job_result_free(result);
    return -1;
}

/* The longest job's tokens, and its result. */
static size_t job_bytes(const struct engine_options *options)
{
    const size_t of_score = options->scores ? sizeof(float) + sizeof(int32_t) : 0;
    int64_t longest = 0;
    for (int i = 0; i < options->n_settings; i++)
        longest = i64_max(longest, options->settings[i].max_tokens);
    return (size_t)longest * (sizeof(int32_t) + of_score + (options->compares ? sizeof(float) : 0));
}

int engine_memory(const struct engine_options *options, int ring, struct engine_memory *out, struct error *err)
{
    struct engine planned = {.options = *options};
    const struct comm group = {MPI_COMM_NULL, 0, ring};
    const struct model_pack_options pack = {options->dtype,   options->scores,  NULL, NULL, options->device,
                                            rows_of(options), options->streamed};
    size_t weights;
    planned.options.group = &group;
    if (choose_kernels(&planned, err) != 0 || model_packed_bytes(options->model, &pack, &weights, err) != 0 ||
        !(planned.pool = pool_create(options->threads, err)))
        return -1;
    int status = 0;
    *out = (struct engine_memory){.forward = job_bytes(options)};
    if (options->device->host_visible)
        out->weights = weights;
    else
        out->device = out->device_weights = weights;
    if (options->streamed) /* the host's copy */
        out->forward += (size_t)model_linear_weights(options->model) * sizeof(bf16);
    for (int i = 0; i < options->n_settings && status == 0; i++) {
        struct forward_memory of_setting;
        const struct forward_options forward = forward_options(&planned, i);
        status = forward_bytes(&forward, &of_setting, err);
        out->forward += of_setting.host;
        out->device += of_setting.device;
        out->device_keys += of_setting.device_keys;
        out->token_keys = of_setting.token_keys > out->token_keys ? of_setting.token_keys : out->token_keys;
    }
    pool_free(planned.pool);
    return status;
}
