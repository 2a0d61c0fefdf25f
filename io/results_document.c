#include "io/results_document.h"

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

const char *const results_task_names[] = {"summarize", "score", NULL};
const char *const results_status_names[] = {"pending", "running", "ok", "partial", "failed", "skipped", NULL};
static const char *const node_kind_names[] = {"map", "reduce", "refine", "final", NULL};
static const char *const span_use_names[] = {"used", "skipped", "dropped", NULL};

const char *result_task_name(enum result_task task)
{
    return results_task_names[task];
}

const char *result_status_name(enum result_status status)
{
    return results_status_names[status];
}

const char *result_node_kind_name(enum result_node_kind kind)
{
    return node_kind_names[kind];
}

/* ---- how structs map to fields ---- */

static const struct store_field run_fields[] = {
    {STORE_FIELD("task", STORE_ENUM, results_run, task), .names = results_task_names},
    {STORE_FIELD("version", STORE_STRING, results_run, version)},
    {STORE_FIELD("model_path", STORE_NAME, results_run, model_path)},
    {STORE_FIELD("model_sha256", STORE_STRING, results_run, model_sha256)},
    {STORE_FIELD("tokenizer_hash", STORE_STRING, results_run, tokenizer_hash)},
    {STORE_FIELD("architecture", STORE_STRING, results_run, architecture)},
    {STORE_FIELD("options", STORE_STRING, results_run, options)},
    {STORE_FIELD("config_hash", STORE_STRING, results_run, config_hash)},
    {STORE_FIELD("hosts", STORE_STRING, results_run, hosts)},
    {STORE_FIELD("dtype", STORE_STRING, results_run, dtype)},
    {STORE_FIELD("started", STORE_STRING, results_run, started)},
    {STORE_FIELD("ranks", STORE_INT, results_run, ranks)},
    {STORE_FIELD("ring_size", STORE_INT, results_run, ring_size)},
};
const struct store_record results_run_record = {run_fields, COUNT(run_fields), sizeof(struct results_run)};

static const struct store_field document_fields[] = {
    {STORE_FIELD("id", STORE_NAME, result_document, id)},
    {STORE_FIELD("path", STORE_NAME, result_document, path)},
    {STORE_FIELD("sha256", STORE_STRING, result_document, sha256)},
    {STORE_FIELD("order", STORE_INT, result_document, order)},
    {STORE_FIELD("bytes", STORE_INT, result_document, bytes)},
    {STORE_FIELD("chars", STORE_INT, result_document, chars)},
    {STORE_FIELD("tokens_in", STORE_INT, result_document, tokens_in)},
    {STORE_FIELD("tokens_used", STORE_INT, result_document, tokens_used)},
    {STORE_FIELD("tokens_dropped", STORE_INT, result_document, tokens_dropped)},
    {STORE_FIELD("tokens_forgotten", STORE_INT, result_document, tokens_forgotten)},
    {STORE_FIELD("status", STORE_ENUM, result_document, status), .names = results_status_names},
    {STORE_FIELD("reason", STORE_STRING, result_document, reason)},
    {STORE_FIELD("attempts", STORE_INT, result_document, attempts)},
    {STORE_FIELD("strategy", STORE_STRING, result_document, strategy)},
    {STORE_FIELD("finish_reason", STORE_STRING, result_document, finish_reason)},
    {STORE_FIELD("prefill_seconds", STORE_REAL, result_document, timings.prefill_seconds)},
    {STORE_FIELD("decode_seconds", STORE_REAL, result_document, timings.decode_seconds)},
    {STORE_FIELD("wall_seconds", STORE_REAL, result_document, timings.wall_seconds)},
    {STORE_FIELD("tokens_prefilled", STORE_INT, result_document, timings.tokens_prefilled)},
    {STORE_FIELD("tokens_generated", STORE_INT, result_document, timings.tokens_generated)},
    {STORE_FIELD("run", STORE_INT, result_document, run)},
};
static const struct store_record document_record = {document_fields, COUNT(document_fields),
                                                    sizeof(struct result_document)};

static const struct store_field chunk_fields[] = {
    {STORE_FIELD("index", STORE_INT, result_chunk, index)},
    {STORE_FIELD("first_token", STORE_INT, result_chunk, first_token)},
    {STORE_FIELD("end_token", STORE_INT, result_chunk, end_token)},
    {STORE_FIELD("first_byte", STORE_INT, result_chunk, first_byte)},
    {STORE_FIELD("end_byte", STORE_INT, result_chunk, end_byte)},
    {STORE_FIELD("overlap", STORE_INT, result_chunk, overlap)},
};
static const struct store_record chunk_record = {chunk_fields, COUNT(chunk_fields), sizeof(struct result_chunk)};

/* text before text_bytes: the second, where there is one, is the one that counts. */
static const struct store_field node_fields[] = {
    {STORE_FIELD("id", STORE_INT, result_node, id)},
    {STORE_FIELD("parent", STORE_INT, result_node, parent)},
    {STORE_FIELD("level", STORE_INT, result_node, level)},
    {STORE_FIELD("kind", STORE_ENUM, result_node, kind), .names = node_kind_names},
    {STORE_FIELD("chunk", STORE_INT, result_node, chunk)},
    {STORE_FIELD("prompt_tokens", STORE_INT, result_node, prompt_tokens)},
    {STORE_FIELD("tokens_generated", STORE_INT, result_node, n_tokens)},
    {STORE_FIELD("finish_reason", STORE_STRING, result_node, finish_reason)},
    {STORE_FIELD("text", STORE_TEXT, result_node, text)},
    {STORE_FIELD("text_bytes", STORE_BYTES, result_node, text)},
    {STORE_FIELD("tokens", STORE_TOKENS, result_node, tokens),
     .count_offset = offsetof(struct result_node, n_tokens)},
};
static const struct store_record node_record = {node_fields, COUNT(node_fields), sizeof(struct result_node)};

static const struct store_field span_fields[] = {
    {STORE_FIELD("first_byte", STORE_INT, document_span, first_byte)},
    {STORE_FIELD("end_byte", STORE_INT, document_span, end_byte)},
    {STORE_FIELD("first_text", STORE_INT, document_span, first_text)},
    {STORE_FIELD("end_text", STORE_INT, document_span, end_text)},
    {STORE_FIELD("use", STORE_ENUM, document_span, use), .names = span_use_names},
    {STORE_FIELD("reason", STORE_STRING, document_span, reason)},
};
static const struct store_record span_record = {span_fields, COUNT(span_fields), sizeof(struct document_span)};

static const struct store_field score_fields[] = {
    {STORE_FIELD("count", STORE_INT, result_score, count)},
    {STORE_FIELD("nll_sum", STORE_REAL, result_score, nll_sum)},
    {STORE_FIELD("perplexity", STORE_REAL, result_score, perplexity)},
};
static const struct store_record score_record = {score_fields, COUNT(score_fields), sizeof(struct result_score)};

static const struct store_field bucket_fields[] = {
    {STORE_FIELD("first_position", STORE_INT, result_bucket, first_position)},
    {STORE_FIELD("end_position", STORE_INT, result_bucket, end_position)},
    {STORE_FIELD("count", STORE_INT, result_bucket, count)},
    {STORE_FIELD("nll_sum", STORE_REAL, result_bucket, nll_sum)},
    {STORE_FIELD("perplexity", STORE_REAL, result_bucket, perplexity)},
};
static const struct store_record bucket_record = {bucket_fields, COUNT(bucket_fields),
                                                  sizeof(struct result_bucket)};

static const struct store_field receipt_fields[] = {
    {STORE_FIELD("policy", STORE_STRING, result_receipt, policy)},
    {STORE_FIELD("reference", STORE_STRING, result_receipt, reference)},
    {STORE_FIELD("tokens", STORE_INT, result_receipt, tokens)},
    {STORE_FIELD("predictions", STORE_INT, result_receipt, predictions)},
    {STORE_FIELD("mean_loss", STORE_REAL, result_receipt, mean_loss)},
    {STORE_FIELD("worst_loss", STORE_REAL, result_receipt, worst_loss)},
    {STORE_FIELD("worst_loss_position", STORE_INT, result_receipt, worst_loss_position)},
    {STORE_FIELD("perplexity", STORE_REAL, result_receipt, perplexity)},
    {STORE_FIELD("reference_perplexity", STORE_REAL, result_receipt, reference_perplexity)},
    {STORE_FIELD("probes", STORE_INT, result_receipt, probes)},
    {STORE_FIELD("mean_kl", STORE_REAL, result_receipt, mean_kl)},
    {STORE_FIELD("worst_kl", STORE_REAL, result_receipt, worst_kl)},
    {STORE_FIELD("worst_kl_position", STORE_INT, result_receipt, worst_kl_position)},
    {STORE_FIELD("bytes", STORE_INT, result_receipt, bytes)},
    {STORE_FIELD("reference_bytes", STORE_INT, result_receipt, reference_bytes)},
    {STORE_FIELD("ratio", STORE_REAL, result_receipt, ratio)},
};
static const struct store_record receipt_record = {receipt_fields, COUNT(receipt_fields),
                                                   sizeof(struct result_receipt)};

/* ---- score ---- */

static int score_write(hid_t group, const struct result_score *score, struct error *err)
{
    hid_t inside = store_group_new(group, "score", err);
    if (inside < 0)
        return -1;
    int64_t n = score->count;
    int status = store_attributes_write(inside, &score_record, score, err);
    if (!status)
        status =
            store_array_write(inside, "position", H5T_NATIVE_INT64, (struct store_rows){score->position, n}, err);
    if (!status)
        status = store_array_write(inside, "token", H5T_NATIVE_INT32, (struct store_rows){score->token, n}, err);
    if (!status)
        status =
            store_array_write(inside, "logprob", H5T_NATIVE_FLOAT, (struct store_rows){score->logprob, n}, err);
    if (!status)
        status = store_array_write(inside, "top1", H5T_NATIVE_INT32, (struct store_rows){score->top1, n}, err);
    if (!status)
        status = store_table_write(inside, "buckets", &bucket_record,
                                   (struct store_rows){score->buckets, score->n_buckets}, err);
    H5Gclose(inside);
    return status;
}

static int score_read(hid_t group, struct arena *arena, struct result_score *out, struct error *err)
{
    if (!store_exists(group, "score"))
        return 0;
    hid_t inside = store_group_open(group, "score", err);
    if (inside < 0)
        return -1;
    struct store_rows position, token, logprob, top1, buckets;
    int status = store_attributes_read(inside, &score_record, out, arena, err);
    if (status || (status = store_array_read(inside, "position", H5T_NATIVE_INT64, arena, &position, err)) ||
        (status = store_array_read(inside, "token", H5T_NATIVE_INT32, arena, &token, err)) ||
        (status = store_array_read(inside, "logprob", H5T_NATIVE_FLOAT, arena, &logprob, err)) ||
        (status = store_array_read(inside, "top1", H5T_NATIVE_INT32, arena, &top1, err)) ||
        (status = store_table_read(inside, "buckets", &bucket_record, arena, &buckets, err)))
        goto done;
    if (position.n != out->count || token.n != out->count || logprob.n != out->count || top1.n != out->count)
        status = error_set(err, ERROR_INPUT, "the arrays of the score are not all of %lld entries",
                           (long long)out->count);
    out->position = position.rows;
    out->token = token.rows;
    out->logprob = logprob.rows;
    out->top1 = top1.rows;
    out->buckets = buckets.rows;
    out->n_buckets = buckets.n;
done:
    H5Gclose(inside);
    return status;
}

/* ---- receipt ---- */

static int receipt_write(hid_t group, const struct result_document *document, struct error *err)
{
    const struct result_receipt *receipt = &document->receipt;
    const int64_t n = receipt->logprob ? document->score.count : 0;
    hid_t inside = store_group_new(group, "receipt", err);
    if (inside < 0)
        return -1;
    int status = store_attributes_write(inside, &receipt_record, receipt, err);
    if (!status)
        status =
            store_array_write(inside, "logprob", H5T_NATIVE_FLOAT, (struct store_rows){receipt->logprob, n}, err);
    if (!status)
        status = store_table_write(inside, "buckets", &bucket_record,
                                   (struct store_rows){receipt->buckets, receipt->n_buckets}, err);
    H5Gclose(inside);
    return status;
}

static int receipt_read(hid_t group, struct arena *arena, struct result_document *document, struct error *err)
{
    struct result_receipt *out = &document->receipt;
    if (!store_exists(group, "receipt"))
        return 0;
    hid_t inside = store_group_open(group, "receipt", err);
    if (inside < 0)
        return -1;
    struct store_rows logprob, buckets;
    int status = store_attributes_read(inside, &receipt_record, out, arena, err);
    if (!status)
        status = store_array_read(inside, "logprob", H5T_NATIVE_FLOAT, arena, &logprob, err);
    if (!status)
        status = store_table_read(inside, "buckets", &bucket_record, arena, &buckets, err);
    if (!status && logprob.n != 0 && logprob.n != document->score.count)
        status = error_set(err, ERROR_INPUT, "the receipt has %lld log-probabilities, the score %lld",
                           (long long)logprob.n, (long long)document->score.count);
    if (!status) {
        out->logprob = logprob.n > 0 ? logprob.rows : NULL;
        out->buckets = buckets.rows;
        out->n_buckets = buckets.n;
    }
    H5Gclose(inside);
    return status;
}

/* ---- document ---- */

static int document_lists_write(hid_t group, const struct result_document *d, struct error *err)
{
    if (store_table_write(group, "chunks", &chunk_record, (struct store_rows){d->chunks, d->n_chunks}, err) ||
        store_table_write(group, "nodes", &node_record, (struct store_rows){d->nodes, d->n_nodes}, err) ||
        store_table_write(group, "ledger", &span_record, (struct store_rows){d->spans, d->n_spans}, err))
        return -1;
    return store_array_write(group, "tokens", H5T_NATIVE_INT32, (struct store_rows){d->tokens, d->n_tokens}, err);
}

int results_document_write(hid_t group, const struct result_document *document, struct error *err)
{
    if (store_attributes_write(group, &document_record, document, err) ||
        store_text_write(group, "text", &document->text, err) || document_lists_write(group, document, err))
        return -1;
    if (document->score.count && score_write(group, &document->score, err))
        return -1;
    return document->receipt.tokens ? receipt_write(group, document, err) : 0;
}

int results_document_read(hid_t group, struct arena *arena, struct result_document *out, struct error *err)
{
    struct store_rows chunks, nodes, spans, tokens;
    *out = (struct result_document){0};
    if (store_attributes_read(group, &document_record, out, arena, err) ||
        store_text_read(group, "text", arena, &out->text, err) ||
        store_table_read(group, "chunks", &chunk_record, arena, &chunks, err) ||
        store_table_read(group, "nodes", &node_record, arena, &nodes, err) ||
        store_table_read(group, "ledger", &span_record, arena, &spans, err) ||
        store_array_read(group, "tokens", H5T_NATIVE_INT32, arena, &tokens, err) ||
        score_read(group, arena, &out->score, err) || receipt_read(group, arena, out, err))
        return -1;
    out->chunks = chunks.rows;
    out->n_chunks = chunks.n;
    out->nodes = nodes.rows;
    out->n_nodes = nodes.n;
    out->spans = spans.rows;
    out->n_spans = spans.n;
    out->tokens = tokens.rows;
    out->n_tokens = tokens.n;
    return 0;
}
