#include "pipeline/record.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pipeline/buckets.h"
#include "pipeline/layers.h"
#include "pipeline/positions.h"

/* What a record points to while it is added. */
struct material {
    struct result_chunk *chunks;
    struct result_node *nodes;
    int64_t *positions;
    struct arena texts; /* of the nodes */
    struct result_bucket buckets[BUCKETS_MOST], reference_buckets[BUCKETS_MOST];
    char policy[256], reference[320]; /* of the receipt */
};

static void *room(int64_t n, size_t element, struct error *err)
{
    void *memory = calloc((size_t)n + 1, element);
    if (!memory)
        error_set(err, ERROR_RESOURCE, "no memory for a record of %lld entries", (long long)n);
    return memory;
}

static int record_chunks(const struct work *work, struct material *material, struct error *err)
{
    if (!(material->chunks = room(work->chunks.count, sizeof *material->chunks, err)))
        return -1;
    for (int64_t i = 0; i < work->chunks.count; i++) {
        const struct chunk *chunk = &work->chunks.items[i];
        material->chunks[i] = (struct result_chunk){
            i, chunk->first_token, chunk->end_token, chunk->first_byte, chunk->end_byte, chunk->overlap};
    }
    return 0;
}

static int record_nodes(const struct plan *plan, const struct work *work, struct material *material,
                        struct error *err)
{
    const struct tokenizer *tokenizer = plan->opened->tokenizer;
    if (!(material->nodes = room(work->n_nodes, sizeof *material->nodes, err)))
        return -1;
    for (int64_t i = 0; i < work->n_nodes; i++) {
        const struct node *node = &work->nodes[i];
        material->nodes[i] = (struct result_node){
            .id = i,
            .parent = node->parent,
            .level = node->level,
            .kind = node->kind,
            .chunk = node->chunk,
            .prompt_tokens = node->prompt_tokens,
            .n_tokens = node->n_tokens,
            .tokens = node->tokens,
            .finish_reason = node->state == NODE_DONE ? job_finish_name(node->finish) : "",
        };
        if (tokenizer_spell(tokenizer, node->tokens, node->n_tokens, &material->texts, &material->nodes[i].text,
                            err) != 0)
            return -1;
    }
    return 0;
}

/* Positions count from the first token of the sequence, which is BOS where the model has one. */
static int record_score(const struct plan *plan, const struct work *work, struct material *material,
                        struct result_score *out, struct error *err)
{
    const int64_t first = work->score_first, count = work->score_end - first;
    const int64_t bos = tokenizer_add_bos(plan->opened->tokenizer) ? 1 : 0;
    if (count <= 0 || work->failed)
        return 0;
    if (!(material->positions = room(count, sizeof *material->positions, err)))
        return -1;
    double nll = 0;
    for (int64_t i = 0; i < count; i++) {
        material->positions[i] = first + i + bos;
        nll -= work->logprob[first + i];
    }
    *out = (struct result_score){
        .count = count,
        .position = material->positions,
        .token = work->tokens + first,
        .logprob = work->logprob + first,
        .top1 = work->top1 + first,
        .nll_sum = nll,
        .perplexity = exp(nll / (double)count),
        .buckets = material->buckets,
    };
    out->n_buckets = buckets_fill(out, material->buckets);
    return 0;
}

/* The reference's scores beside those of `score`, and the losses between them. */
static void compare_scores(const struct work *work, const struct result_score *score, struct material *material,
                           struct receipt_loss *loss, struct result_receipt *out)
{
    struct result_score reference = *score;
    *loss = (struct receipt_loss){0};
    reference.logprob = out->logprob = work->reference_logprob + work->score_first;
    for (int64_t i = 0; i < score->count; i++)
        receipt_add_loss(loss, score->logprob[i], reference.logprob[i], score->position[i]);
    out->buckets = material->reference_buckets;
    out->n_buckets = buckets_fill(&reference, material->reference_buckets);
}

static void name_policies(const struct plan *plan, const struct work *work, struct material *material)
{
    const struct model *model = plan->opened->model;
    const int layers = model->shape.layers, reference = plan->options->against ? 1 : PLAN_UNTOUCHED;
    layers_describe(plan_policies(plan, work->setting), layers, material->policy, sizeof material->policy);
    layers_describe(plan_policies(plan, reference), layers, material->reference, sizeof material->reference);
    const size_t used = strlen(material->reference);
    if (!plan->options->against && positions_differ(model))
        snprintf(material->reference + used, sizeof material->reference - used,
                 ", positions as in the model's file");
}

/* The numbers of what was measured. */
static void record_losses(const struct receipt *receipt, struct result_receipt *to)
{
    const double n = (double)i64_max(1, receipt->loss.count);
    to->predictions = receipt->loss.count;
    to->mean_loss = receipt_mean_loss(&receipt->loss);
    to->worst_loss = receipt->loss.worst;
    to->worst_loss_position = receipt->loss.worst_position;
    to->perplexity = exp(receipt->loss.nll_sum / n);
    to->reference_perplexity = exp(receipt->loss.reference_nll_sum / n);
    to->probes = receipt->divergence.count;
    to->mean_kl = receipt_mean_divergence(&receipt->divergence);
    to->worst_kl = receipt->divergence.worst;
    to->worst_kl_position = receipt->divergence.worst_position;
    to->bytes = receipt->memory.bytes;
    to->reference_bytes = receipt->memory.reference_bytes;
    to->ratio = (double)receipt->memory.reference_bytes / (double)i64_max(1, receipt->memory.bytes);
}

/* Where nothing had left the memory there are no numbers: zeros would flatter the policy. */
static void record_receipt(const struct plan *plan, const struct work *work, struct material *material,
                           struct result_document *out)
{
    struct receipt receipt = work->receipt;
    struct result_receipt *to = &out->receipt;
    if (work->failed || receipt.memory.tokens == 0)
        return;
    if (out->score.count > 0)
        compare_scores(work, &out->score, material, &receipt.loss, to);
    name_policies(plan, work, material);
    to->policy = material->policy;
    to->reference = material->reference;
    to->tokens = receipt.memory.tokens;
    if (receipt.memory.bytes > 0)
        record_losses(&receipt, to);
    else
        to->mean_loss = to->worst_loss = to->perplexity = to->reference_perplexity = to->mean_kl = to->worst_kl =
            to->ratio = NAN;
}

/* What the end of the run tells of it. */
static int keep_findings(const struct result_document *from, struct plan_document *to, struct error *err)
{
    to->score = (struct plan_score){
        .count = from->score.count, .perplexity = from->score.perplexity, .n_buckets = from->score.n_buckets};
    to->receipt = from->receipt;
    to->receipt.policy = to->receipt.reference = NULL;
    to->receipt.logprob = NULL;
    to->receipt.buckets = NULL;
    const size_t bytes = (size_t)from->score.n_buckets * sizeof *to->score.buckets;
    if (bytes == 0)
        return 0;
    if (!(to->score.buckets = malloc(bytes)) ||
        (from->receipt.buckets && !(to->score.reference_buckets = malloc(bytes))))
        return error_set(err, ERROR_RESOURCE, "no memory for a score's buckets");
    memcpy(to->score.buckets, from->score.buckets, bytes);
    if (from->receipt.buckets)
        memcpy(to->score.reference_buckets, from->receipt.buckets, bytes);
    return 0;
}

/* The answer is the last node, when the document came to its end. */
static void record_answer(const struct plan_document *document, const struct material *material,
                          struct result_document *out)
{
    const struct work *work = &document->work;
    if (document->status == RESULT_FAILED || work->n_nodes == 0)
        return;
    const struct result_node *last = &material->nodes[work->n_nodes - 1];
    if (last->kind != RESULT_FINAL)
        return;
    out->text = last->text;
    out->finish_reason = last->finish_reason;
    out->n_tokens = last->n_tokens;
    out->tokens = last->tokens;
}

int record_document(struct plan *plan, int64_t index, double wall_seconds, struct results *results,
                    struct error *err)
{
    struct plan_document *document = &plan->documents[index];
    const struct work *work = &document->work;
    const struct document_text *text = &document->text;
    struct material material = {0};
    const bool generates = plan->task->job == JOB_GENERATE;
    struct result_document out = {
        .id = document->id,
        .path = document->path,
        .sha256 = text->sha256,
        .order = index,
        .bytes = text->source_bytes,
        .chars = text->chars,
        .tokens_in = work->n_tokens,
        .tokens_used = document->status == RESULT_FAILED ? 0 : work->n_tokens - work->dropped,
        .tokens_dropped = work->dropped,
        .tokens_forgotten = work->forgotten,
        .status = document->status,
        .reason = document->reason,
        .attempts = document->attempts + 1,
        .strategy = work->n_nodes ? strategy_name(work->strategy) : "",
        .n_chunks = work->chunks.count,
        .n_nodes = generates ? work->n_nodes : 0,
        .n_spans = text->n_spans,
        .spans = text->spans,
        .timings = {work->prefill_seconds, work->decode_seconds, wall_seconds, work->prefilled, work->generated},
    };
    int status = -1;
    if (record_chunks(work, &material, err) == 0 && (!generates || record_nodes(plan, work, &material, err) == 0) &&
        (generates || record_score(plan, work, &material, &out.score, err) == 0)) {
        out.chunks = material.chunks;
        out.nodes = material.nodes;
        if (generates)
            record_answer(document, &material, &out);
        record_receipt(plan, work, &material, &out);
        status = results_add(results, &out, err);
        if (status == 0)
            status = keep_findings(&out, document, err);
    }
    free(material.chunks);
    free(material.nodes);
    free(material.positions);
    arena_free(&material.texts);
    return status;
}
