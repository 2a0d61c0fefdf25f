#include "pipeline/report.h"

#include <inttypes.h>

/* "12.3 MiB" and the like. */
static void print_bytes(int64_t bytes, FILE *out)
{
    if (bytes < 1 << 20)
        fprintf(out, "%.1f KiB", (double)bytes / (1 << 10));
    else
        fprintf(out, "%.1f MiB", (double)bytes / (1 << 20));
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

void report_outcome(const struct plan_document *document, char *out, size_t size)
{
    char forgotten[64] = "", receipt[160] = "";
    if (document->work.forgotten > 0)
        snprintf(forgotten, sizeof forgotten, "; %" PRId64 " tokens forgotten", document->work.forgotten);
    if (document->receipt.tokens > 0)
        outcome_receipt(&document->receipt, receipt, sizeof receipt);
    snprintf(out, size, "%s%s%s%s%s", result_status_name(document->status), document->reason[0] ? ": " : "",
             document->reason, receipt, forgotten);
}

void report_scores(const struct plan *plan, FILE *out)
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
}
