#include "pipeline/report.h"

#include <inttypes.h>

/* "12.3 MiB" and the like. */
static void print_bytes(int64_t bytes, FILE *out)
{
    if (bytes < 1 << 20)
        fprintf(out, "%.1f KiB", (double)bytes / (1 << 10));
    else if (bytes < 1 << 30)
        fprintf(out, "%.1f MiB", (double)bytes / (1 << 20));
    else
        fprintf(out, "%.1f GiB", (double)bytes / (1 << 30));
}

void report_hashing(const char *model, int64_t bytes, FILE *out)
{
    fprintf(out, "hashing %s, ", model);
    print_bytes(bytes, out);
    fputc('\n', out);
}

void report_ring(int ring, const char *by, FILE *out)
{
    fprintf(out, "rings of %d ranks on GPUs, keys travel by %s\n", ring, by);
}

void report_corpus(const struct corpus *corpus, FILE *out)
{
    fprintf(out, "reading %" PRId64 " files, ", corpus->n_ready);
    print_bytes(corpus->ready_bytes, out);
    if (corpus->n_left_out > 0)
        fprintf(out,
                "; %" PRId64
                " files and folders left out (hidden, ignored by git, not included, met before, or the "
                "output folder): --log-level debug lists them",
                corpus->n_left_out);
    fputc('\n', out);
}

static void print_receipt(const struct result_receipt *receipt, FILE *out)
{
    const double tokens = (double)receipt->tokens;
    fprintf(out, "  against: perplexity %.6f; loss %.6f nats a token, at worst %.4f (position %" PRId64 ")\n",
            receipt->reference_perplexity, receipt->mean_loss, receipt->worst_loss, receipt->worst_loss_position);
    fprintf(out, "  KL(against || policy) %.6f nats on %" PRId64 " probes, at worst %.4f (position %" PRId64 ")\n",
            receipt->mean_kl, receipt->probes, receipt->worst_kl, receipt->worst_kl_position);
    fputs("  memory ", out);
    print_bytes(receipt->bytes, out);
    fputs(" in place of ", out);
    print_bytes(receipt->reference_bytes, out);
    fprintf(out, " for %" PRId64 " tokens (%.0f and %.0f bytes a token), ratio %.2f\n", receipt->tokens,
            (double)receipt->bytes / tokens, (double)receipt->reference_bytes / tokens, receipt->ratio);
}

static void print_buckets(const struct plan_score *score, FILE *out)
{
    for (int64_t b = 0; b < score->n_buckets && score->n_buckets > 1; b++) {
        const struct result_bucket *bucket = &score->buckets[b];
        fprintf(out, "  positions %9" PRId64 " - %9" PRId64 ": perplexity %.4f", bucket->first_position,
                bucket->end_position - 1, bucket->perplexity);
        if (score->reference_buckets)
            fprintf(out, ", against %.4f", score->reference_buckets[b].perplexity);
        fputc('\n', out);
    }
}

static void outcome_receipt(const struct result_receipt *receipt, char *out, size_t size)
{
    if (receipt->bytes == 0)
        snprintf(out, size,
                 "; receipt: nothing had left the memory after %" PRId64 " tokens, so nothing was measured",
                 receipt->tokens);
    else
        snprintf(out, size, "; receipt: loss %.3f nats a token, KL %.3f, memory 1/%.1f on %" PRId64 " tokens",
                 receipt->mean_loss, receipt->mean_kl, receipt->ratio, receipt->tokens);
}

static void outcome_answer(const struct plan_document *document, char *out, size_t size)
{
    const struct work *work = &document->work;
    const struct node *last = work->n_nodes > 0 ? &work->nodes[work->n_nodes - 1] : NULL;
    if (document->status != RESULT_FAILED && last && last->kind == RESULT_FINAL && last->finish == FINISH_LENGTH)
        snprintf(out, size, "; answer cut off at %" PRId64 " tokens (--max-new)", last->n_tokens);
}

void report_outcome(const struct plan_document *document, char *out, size_t size)
{
    char forgotten[64] = "", receipt[160] = "", cut[64] = "";
    outcome_answer(document, cut, sizeof cut);
    if (document->work.forgotten > 0)
        snprintf(forgotten, sizeof forgotten, "; %" PRId64 " tokens forgotten", document->work.forgotten);
    if (document->receipt.tokens > 0)
        outcome_receipt(&document->receipt, receipt, sizeof receipt);
    snprintf(out, size, "%s%s%s%s%s%s", result_status_name(document->status), document->reason[0] ? ": " : "",
             document->reason, cut, receipt, forgotten);
}

struct report_counts report_count(const struct plan *plan)
{
    struct report_counts counts = {0};
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct plan_document *document = &plan->documents[i];
        counts.of[document->status]++;
        counts.failed_before += document->done && !document->kept && document->status == RESULT_FAILED;
        counts.kept += document->kept;
    }
    return counts;
}

void report_closing(const struct report_counts *counts, char *out, size_t size)
{
    static const enum result_status order[] = {RESULT_OK, RESULT_PARTIAL, RESULT_SKIPPED, RESULT_FAILED,
                                               RESULT_PENDING};
    enum { STATUSES = sizeof order / sizeof *order };
    int64_t all = 0;
    for (int i = 0; i < STATUSES; i++)
        all += counts->of[order[i]];
    size_t used = (size_t)snprintf(out, size, "%" PRId64 " documents", all);
    const char *before = ": ";
    for (int i = 0; i < STATUSES; i++) {
        if (counts->of[order[i]] == 0)
            continue;
        const char *name = order[i] == RESULT_PENDING ? "undone" : result_status_name(order[i]);
        used += (size_t)snprintf(out + used, size - used, "%s%" PRId64 " %s", before, counts->of[order[i]], name);
        before = ", ";
    }
}

int report_scores(const struct plan *plan, FILE *out, struct error *err)
{
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct plan_document *document = &plan->documents[i];
        if (document->score.count == 0)
            continue;
        fprintf(out, "%s: perplexity %.6f over %" PRId64 " tokens\n", document->id, document->score.perplexity,
                document->score.count);
        if (document->receipt.tokens > 0)
            print_receipt(&document->receipt, out);
        print_buckets(&document->score, out);
    }
    return ferror(out) || fflush(out) != 0 ? error_errno(err, "writing the scores") : 0;
}
