#include "io/export.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/utf8.h"
#include "io/results.h"
#include "io/store_text.h"

/* How one format writes one document. */
typedef int (*document_writer)(const struct result_document *document, const struct results_run *run, FILE *out,
                               struct error *err);

static bool has_answer(const struct result_document *document)
{
    return document->status == RESULT_OK || document->status == RESULT_PARTIAL;
}

/* ---- jsonl ---- */

static void json_add_int(cJSON *object, const char *name, int64_t value)
{
    char digits[32]; /* as a double it would lose digits from 2^53 */
    snprintf(digits, sizeof digits, "%" PRId64, value);
    cJSON_AddRawToObject(object, name, digits);
}

static void json_add_text(cJSON *object, const char *name, const char *bytes, size_t length)
{
    struct arena scratch = {0};
    struct error ignored; /* no memory: the field is missing, and cJSON will be short of memory too */
    size_t replaced;
    const char *clean = store_text_clean(&scratch, bytes, length, &replaced, &ignored);
    if (clean)
        cJSON_AddStringToObject(object, name, clean);
    arena_free(&scratch);
}

static void json_add_string(cJSON *object, const char *name, const char *string)
{
    json_add_text(object, name, string, strlen(string));
}

static cJSON *json_choices(const struct result_document *document)
{
    cJSON *choices = cJSON_CreateArray(), *choice = cJSON_CreateObject(), *message = cJSON_CreateObject();
    cJSON_AddStringToObject(message, "role", "assistant");
    json_add_text(message, "content", document->text.bytes, document->text.length);
    json_add_int(choice, "index", 0);
    cJSON_AddItemToObject(choice, "message", message);
    json_add_string(choice, "finish_reason", document->finish_reason);
    cJSON_AddItemToArray(choices, choice);
    return choices;
}

/* The start of the run in seconds since 1970, 0 when it is not to be read. */
static int64_t run_epoch(const struct results_run *run)
{
    struct tm start = {0};
    return strptime(run->started, "%Y-%m-%dT%H:%M:%S", &start) ? (int64_t)timegm(&start) : 0;
}

static cJSON *json_response(const struct result_document *document, const struct results_run *run, const char *id)
{
    cJSON *response = cJSON_CreateObject(), *body = cJSON_CreateObject(), *usage = cJSON_CreateObject();
    json_add_int(usage, "prompt_tokens", document->timings.tokens_prefilled);
    json_add_int(usage, "completion_tokens", document->timings.tokens_generated);
    json_add_int(usage, "total_tokens", document->timings.tokens_prefilled + document->timings.tokens_generated);
    cJSON_AddStringToObject(body, "id", id);
    cJSON_AddStringToObject(body, "object", "chat.completion");
    json_add_int(body, "created", run_epoch(run));
    json_add_string(body, "model", run->model_path);
    cJSON_AddItemToObject(body, "choices", json_choices(document));
    cJSON_AddItemToObject(body, "usage", usage);
    json_add_int(response, "status_code", 200);
    cJSON_AddStringToObject(response, "request_id", id);
    cJSON_AddItemToObject(response, "body", body);
    return response;
}

static cJSON *json_error(const struct result_document *document)
{
    cJSON *error = cJSON_CreateObject();
    cJSON_AddStringToObject(error, "code", result_status_name(document->status));
    json_add_string(error, "message", document->reason);
    return error;
}

static cJSON *json_chunks(const struct result_document *document)
{
    cJSON *chunks = cJSON_CreateArray();
    for (int64_t i = 0; i < document->n_chunks; i++) {
        const struct result_chunk *chunk = &document->chunks[i];
        cJSON *object = cJSON_CreateObject();
        json_add_int(object, "index", chunk->index);
        json_add_int(object, "first_token", chunk->first_token);
        json_add_int(object, "end_token", chunk->end_token);
        json_add_int(object, "first_byte", chunk->first_byte);
        json_add_int(object, "end_byte", chunk->end_byte);
        json_add_int(object, "overlap", chunk->overlap);
        cJSON_AddItemToArray(chunks, object);
    }
    return chunks;
}

static cJSON *json_nodes(const struct result_document *document)
{
    cJSON *nodes = cJSON_CreateArray();
    for (int64_t i = 0; i < document->n_nodes; i++) {
        const struct result_node *node = &document->nodes[i];
        cJSON *object = cJSON_CreateObject();
        json_add_int(object, "id", node->id);
        json_add_int(object, "parent", node->parent);
        json_add_int(object, "level", node->level);
        cJSON_AddStringToObject(object, "kind", result_node_kind_name(node->kind));
        json_add_int(object, "chunk", node->chunk);
        json_add_int(object, "prompt_tokens", node->prompt_tokens);
        json_add_int(object, "tokens_generated", node->n_tokens);
        json_add_string(object, "finish_reason", node->finish_reason);
        json_add_text(object, "text", node->text.bytes, node->text.length);
        cJSON_AddItemToArray(nodes, object);
    }
    return nodes;
}

static cJSON *json_ledger(const struct result_document *document)
{
    cJSON *ledger = cJSON_CreateArray();
    for (int64_t i = 0; i < document->n_spans; i++) {
        const struct document_span *span = &document->spans[i];
        cJSON *object = cJSON_CreateObject();
        json_add_int(object, "first_byte", span->first_byte);
        json_add_int(object, "end_byte", span->end_byte);
        cJSON_AddStringToObject(object, "use", document_use_name(span->use));
        json_add_string(object, "reason", span->reason);
        cJSON_AddItemToArray(ledger, object);
    }
    return ledger;
}

static cJSON *json_timings(const struct result_timings *timings)
{
    cJSON *object = cJSON_CreateObject();
    cJSON_AddNumberToObject(object, "prefill_seconds", timings->prefill_seconds);
    cJSON_AddNumberToObject(object, "decode_seconds", timings->decode_seconds);
    cJSON_AddNumberToObject(object, "wall_seconds", timings->wall_seconds);
    json_add_int(object, "tokens_prefilled", timings->tokens_prefilled);
    json_add_int(object, "tokens_generated", timings->tokens_generated);
    return object;
}

static cJSON *json_buckets(const struct result_bucket *rows, int64_t n)
{
    cJSON *buckets = cJSON_CreateArray();
    for (int64_t i = 0; i < n; i++) {
        const struct result_bucket *bucket = &rows[i];
        cJSON *object = cJSON_CreateObject();
        json_add_int(object, "first_position", bucket->first_position);
        json_add_int(object, "end_position", bucket->end_position);
        json_add_int(object, "count", bucket->count);
        cJSON_AddNumberToObject(object, "nll_sum", bucket->nll_sum);
        cJSON_AddNumberToObject(object, "perplexity", bucket->perplexity);
        cJSON_AddItemToArray(buckets, object);
    }
    return buckets;
}

static cJSON *json_score(const struct result_score *score)
{
    cJSON *object = cJSON_CreateObject();
    json_add_int(object, "count", score->count);
    cJSON_AddNumberToObject(object, "nll_sum", score->nll_sum);
    cJSON_AddNumberToObject(object, "perplexity", score->perplexity);
    cJSON_AddItemToObject(object, "buckets", json_buckets(score->buckets, score->n_buckets));
    return object;
}

static cJSON *json_receipt(const struct result_receipt *receipt)
{
    cJSON *object = cJSON_CreateObject();
    json_add_string(object, "policy", receipt->policy);
    json_add_string(object, "reference", receipt->reference);
    json_add_int(object, "tokens", receipt->tokens);
    json_add_int(object, "predictions", receipt->predictions);
    cJSON_AddNumberToObject(object, "mean_loss", receipt->mean_loss);
    cJSON_AddNumberToObject(object, "worst_loss", receipt->worst_loss);
    json_add_int(object, "worst_loss_position", receipt->worst_loss_position);
    cJSON_AddNumberToObject(object, "perplexity", receipt->perplexity);
    cJSON_AddNumberToObject(object, "reference_perplexity", receipt->reference_perplexity);
    json_add_int(object, "probes", receipt->probes);
    cJSON_AddNumberToObject(object, "mean_kl", receipt->mean_kl);
    cJSON_AddNumberToObject(object, "worst_kl", receipt->worst_kl);
    json_add_int(object, "worst_kl_position", receipt->worst_kl_position);
    json_add_int(object, "bytes", receipt->bytes);
    json_add_int(object, "reference_bytes", receipt->reference_bytes);
    cJSON_AddNumberToObject(object, "ratio", receipt->ratio);
    if (receipt->n_buckets > 0)
        cJSON_AddItemToObject(object, "buckets", json_buckets(receipt->buckets, receipt->n_buckets));
    return object;
}

/* What the OpenAI shape has no place for. */
static cJSON *json_longhaul(const struct result_document *document, const struct results_run *run)
{
    cJSON *object = cJSON_CreateObject(), *tokens = cJSON_CreateObject();
    json_add_string(object, "path", document->path);
    json_add_string(object, "sha256", document->sha256);
    json_add_int(object, "bytes", document->bytes);
    json_add_int(object, "chars", document->chars);
    json_add_int(tokens, "in", document->tokens_in);
    json_add_int(tokens, "used", document->tokens_used);
    json_add_int(tokens, "dropped", document->tokens_dropped);
    json_add_int(tokens, "forgotten", document->tokens_forgotten);
    cJSON_AddItemToObject(object, "tokens", tokens);
    cJSON_AddStringToObject(object, "status", result_status_name(document->status));
    json_add_string(object, "reason", document->reason);
    json_add_int(object, "attempts", document->attempts);
    json_add_string(object, "strategy", document->strategy);
    json_add_int(object, "run", document->run);
    json_add_string(object, "version", run->version);
    json_add_string(object, "model_sha256", run->model_sha256);
    json_add_string(object, "config_hash", run->config_hash);
    cJSON_AddItemToObject(object, "timings", json_timings(&document->timings));
    cJSON_AddItemToObject(object, "chunks", json_chunks(document));
    cJSON_AddItemToObject(object, "nodes", json_nodes(document));
    cJSON_AddItemToObject(object, "ledger", json_ledger(document));
    if (document->score.count > 0)
        cJSON_AddItemToObject(object, "score", json_score(&document->score));
    if (document->receipt.tokens > 0)
        cJSON_AddItemToObject(object, "receipt", json_receipt(&document->receipt));
    return object;
}

static int jsonl_write(const struct result_document *document, const struct results_run *run, FILE *out,
                       struct error *err)
{
    char id[32];
    snprintf(id, sizeof id, "longhaul-%08" PRId64, document->number);
    cJSON *line = cJSON_CreateObject();
    cJSON_AddStringToObject(line, "id", id);
    json_add_string(line, "custom_id", document->id);
    const bool responds = has_answer(document) && run->task != RESULT_SCORE;
    cJSON_AddItemToObject(line, "response", responds ? json_response(document, run, id) : cJSON_CreateNull());
    cJSON_AddItemToObject(line, "error", has_answer(document) ? cJSON_CreateNull() : json_error(document));
    cJSON_AddItemToObject(line, "longhaul", json_longhaul(document, run));
    char *text = cJSON_PrintUnformatted(line);
    cJSON_Delete(line);
    if (!text)
        return error_set(err, ERROR_RESOURCE, "out of memory for the JSON of %s", document->id);
    fprintf(out, "%s\n", text);
    cJSON_free(text);
    return 0;
}

/* ---- md ---- */

/* A name inside one line: control characters would end it. */
static void md_name(FILE *out, const char *name)
{
    for (size_t left = strlen(name); left > 0;) {
        const struct utf8_piece piece = utf8_piece(name, left);
        if (!piece.valid)
            fputs(UTF8_REPLACEMENT, out);
        else if ((unsigned char)*name < ' ')
            fputc(' ', out);
        else
            fwrite(name, 1, piece.length, out);
        name += piece.length;
        left -= piece.length;
    }
}

/* What the memory policy cost, where it was measured. */
static void md_receipt(const struct result_receipt *receipt, FILE *out)
{
    if (receipt->tokens == 0)
        return;
    if (receipt->bytes == 0) {
        fprintf(out,
                "- receipt: %s against %s: nothing had left the memory after %" PRId64
                " tokens, so nothing was measured\n",
                receipt->policy, receipt->reference, receipt->tokens);
        return;
    }
    fprintf(out,
            "- receipt: %s against %s, on %" PRId64 " tokens: loss %.4g nats a token (mean of %" PRId64
            "; worst %.4g at position %" PRId64 "), KL %.4g nats (mean of %" PRId64 " probes; worst %.4g at "
            "position %" PRId64 "), memory %" PRId64 " bytes in place of %" PRId64 " (ratio %.2f)\n",
            receipt->policy, receipt->reference, receipt->tokens, receipt->mean_loss, receipt->predictions,
            receipt->worst_loss, receipt->worst_loss_position, receipt->mean_kl, receipt->probes, receipt->worst_kl,
            receipt->worst_kl_position, receipt->bytes, receipt->reference_bytes, receipt->ratio);
}

/* What every section begins with. */
static void md_head(const struct result_document *document, const struct results_run *run, FILE *out)
{
    fputs("## ", out);
    md_name(out, document->id);
    fputs("\n\n- source: ", out);
    md_name(out, document->path);
    fprintf(out, "\n- tokens: %" PRId64 " in, %" PRId64 " used, %" PRId64 " dropped", document->tokens_in,
            document->tokens_used, document->tokens_dropped);
    if (document->tokens_forgotten > 0)
        fprintf(out, ", %" PRId64 " forgotten", document->tokens_forgotten);
    fprintf(out, "\n- status: %s", result_status_name(document->status));
    if (*document->reason) {
        fputs(": ", out);
        md_name(out, document->reason);
    }
    if (strcmp(document->finish_reason, "length") == 0)
        fprintf(out, "\n- answer: cut off at %" PRId64 " tokens (--max-new)", document->n_tokens);
    fprintf(out, "\n- strategy: %s, %" PRId64 " chunks", document->strategy, document->n_chunks);
    if (run->task != RESULT_SCORE)
        fprintf(out, ", %" PRId64 " generated texts", document->n_nodes);
    fputs("\n- model: ", out);
    md_name(out, run->model_path);
    fputc('\n', out);
    md_receipt(&document->receipt, out);
    fputc('\n', out);
}

static int md_write_summary(const struct result_document *document, const struct results_run *run, FILE *out,
                            struct error *err)
{
    struct arena scratch = {0};
    size_t replaced;
    const char *text = store_text_clean(&scratch, document->text.bytes, document->text.length, &replaced, err);
    if (!text)
        return -1;
    md_head(document, run, out);
    fprintf(out, "%s%s", text, *text ? "\n\n" : "");
    arena_free(&scratch);
    return 0;
}

static int md_write_score(const struct result_document *document, const struct results_run *run, FILE *out,
                          struct error *err)
{
    (void)err;
    const struct result_score *score = &document->score;
    md_head(document, run, out);
    if (score->count > 0)
        fprintf(out, "Perplexity %.8g over %" PRId64 " tokens.\n\n", score->perplexity, score->count);
    const struct result_receipt *receipt = &document->receipt;
    if (score->n_buckets > 0)
        fputs(receipt->n_buckets > 0 ? "| positions | tokens | perplexity | of the reference |\n|---|---|---|---|\n"
                                     : "| positions | tokens | perplexity |\n|---|---|---|\n",
              out);
    for (int64_t i = 0; i < score->n_buckets; i++) {
        const struct result_bucket *bucket = &score->buckets[i];
        fprintf(out, "| %" PRId64 " - %" PRId64 " | %" PRId64 " | %.8g |", bucket->first_position,
                bucket->end_position - 1, bucket->count, bucket->perplexity);
        if (i < receipt->n_buckets)
            fprintf(out, " %.8g |", receipt->buckets[i].perplexity);
        fputc('\n', out);
    }
    fputs(score->n_buckets > 0 ? "\n" : "", out);
    return 0;
}

/* ---- csv ---- */

/* RFC 4180: quoted when it holds a comma, a quote or a line break. */
static void csv_field(FILE *out, const char *field)
{
    if (!strpbrk(field, ",\"\r\n")) {
        fputs(field, out);
        return;
    }
    fputc('"', out);
    for (; *field; field++) {
        if (*field == '"')
            fputc('"', out);
        fputc(*field, out);
    }
    fputc('"', out);
}

static int csv_write(const struct result_document *document, const struct results_run *run, FILE *out,
                     struct error *err)
{
    (void)run;
    (void)err;
    const struct result_score *score = &document->score;
    for (int64_t i = 0; i < score->count; i++) {
        csv_field(out, document->id);
        fprintf(out, ",%" PRId64 ",%" PRId32 ",%.9g,%" PRId32 "\n", score->position[i], score->token[i],
                (double)score->logprob[i], score->top1[i]);
    }
    return 0;
}

/* ---- all formats ---- */

/* By format, and for each the task that it was made for first. */
static const struct format_row {
    enum export_format format;
    const char *name;
    enum result_task task;
    const char *header;
    document_writer write;
} formats[] = {
    {EXPORT_JSONL, "jsonl", RESULT_SUMMARIZE, "", jsonl_write},
    {EXPORT_JSONL, "jsonl", RESULT_SCORE, "", jsonl_write},
    {EXPORT_MD, "md", RESULT_SUMMARIZE, "# Summaries\n\n", md_write_summary},
    {EXPORT_MD, "md", RESULT_SCORE, "# Scores\n\n", md_write_score},
    {EXPORT_CSV, "csv", RESULT_SCORE, "doc,position,token,logprob,top1\n", csv_write},
};
enum { N_FORMATS = sizeof formats / sizeof *formats };

/* How the format writes results of the task; NULL: not at all. */
static const struct format_row *format_find(enum export_format format, enum result_task task, const char *directory,
                                            struct error *err)
{
    const struct format_row *other = NULL;
    for (int i = 0; i < N_FORMATS; i++) {
        if (formats[i].format != format)
            continue;
        if (formats[i].task == task)
            return &formats[i];
        other = &formats[i];
    }
    if (other)
        error_set(err, ERROR_USAGE, "%s is for the results of %s; %s holds those of %s", other->name,
                  result_task_name(other->task), directory, result_task_name(task));
    else
        error_set(err, ERROR_INTERNAL, "export format %d", (int)format);
    return NULL;
}

static int documents_write(struct results_reader *reader, document_writer write, FILE *out, struct error *err)
{
    const struct result_document *document;
    while (!ferror(out)) {
        if (results_next(reader, &document, err))
            return -1;
        if (!document)
            break;
        const struct results_run *run = results_run_of(reader, document->run);
        if (!run)
            return error_set(err, ERROR_INPUT, "result of %s: it comes from run %" PRId64 ", which is not there",
                             document->id, document->run);
        if (write(document, run, out, err))
            return -1;
    }
    if (fflush(out) != 0)
        return error_errno(err, "cannot write the export");
    return ferror(out) ? error_set(err, ERROR_IO, "cannot write the export: an earlier write failed") : 0;
}

int export_write(const char *directory, enum export_format format, FILE *out, struct error *err)
{
    struct results_reader *reader = results_load(directory, err);
    if (!reader)
        return -1;
    enum result_task task = results_task(reader);
    if (format == EXPORT_AUTO)
        format = task == RESULT_SCORE ? EXPORT_CSV : EXPORT_JSONL;
    const struct format_row *row = format_find(format, task, directory, err);
    int status = row ? 0 : -1;
    if (row) {
        fputs(row->header, out);
        status = documents_write(reader, row->write, out, err);
    }
    results_unload(reader);
    return status;
}
