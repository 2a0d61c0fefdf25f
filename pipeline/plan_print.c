/* Showing a plan: what plan.h says of plan_print and plan_describe. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/device.h"
#include "base/line.h"
#include "pipeline/advice.h"
#include "pipeline/forecast.h"
#include "pipeline/layers.h"
#include "pipeline/plan.h"
#include "pipeline/positions.h"

static void print_document(const struct plan_document *document, double seconds, FILE *out)
{
    const struct work *work = &document->work;
    char time[32] = "-";
    if (seconds > 0)
        snprintf(time, sizeof time, "%.1f s", seconds);
    if (document->status == RESULT_PENDING && !document->done)
        line_print(out, "%12" PRId64 " %8" PRId64 "  %-10s %10s  %s", work->n_tokens, work->chunks.count,
                   strategy_name(work->strategy), time, document->id);
    else
        line_print(out, "%12s %8s  %-10s %10s  %s%s%s", "-", "-", result_status_name(document->status), "-",
                   document->id, document->reason[0] ? ": " : "", document->reason);
}

/* Documents, a line each; returns the seconds that one rank would take, 0 without rates. */
static double print_documents(const struct plan *plan, const struct probe_rates *rates, FILE *out)
{
    double seconds = 0;
    fprintf(out, "%12s %8s  %-10s %10s  %s\n", "tokens", "chunks", "strategy", "one rank", "document");
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct work *work = &plan->documents[i].work;
        const double of_document = rates ? forecast_seconds(plan, rates, work) : 0;
        print_document(&plan->documents[i], of_document, out);
        seconds += of_document;
    }
    return seconds;
}

/* On a GPU nothing is predicted: its speed shows in the first segment. */
static int print_cuda(const struct plan *plan, FILE *out, struct error *err)
{
    const struct device *device = setup_device(&plan->setup, 0, err);
    if (!device)
        return -1;
    const struct engine_memory *memory = &plan->setup.memory;
    const double mib = 1 << 20, all = (double)memory->device / mib, weights = (double)memory->device_weights / mib;
    const double keys = (double)memory->device_keys / mib;
    fprintf(out,
            "GPU memory: %.1f MiB a rank (weights %.1f, keys and values %.1f, buffers %.1f; %.1f MiB there: %s)\n",
            all, weights, keys, all - weights - keys, (double)plan->place.gpu_memory / mib, device->model);
    if (memory->token_keys > 0)
        fprintf(out, "a token in full layers: %.1f KiB of keys and values\n", (double)memory->token_keys / 1024);
    fprintf(out, "predicted time: none on GPUs; the run's first segments show their speed\n");
    return 0;
}

int plan_print(const struct plan *plan, FILE *out, struct error *err)
{
    const struct probe_options probe = {plan->opened->model, (enum dtype)plan->setup.dtype, plan->setup.threads};
    struct probe_rates rates;
    if (!plan->setup.cuda && probe_rates(&probe, &rates, err) != 0)
        return -1;
    const double mib = 1 << 20, seconds = print_documents(plan, plan->setup.cuda ? NULL : &rates, out);
    char described[PLAN_DESCRIPTION];
    plan_describe(plan, described, sizeof described);
    fprintf(out, "\n%s\n", described);
    fprintf(out, "memory: weights %.1f MiB a node, %.1f MiB a rank", (double)plan->setup.memory.weights / mib,
            (double)plan->setup.memory.forward / mib);
    fprintf(out, ", %.1f MiB of documents on rank 0 (%.1f MiB a node there)\n", (double)plan->setup.documents / mib,
            (double)device_cpu()->memory_free() / mib);
    if (plan->setup.cuda) {
        if (print_cuda(plan, out, err) != 0)
            return -1;
    } else {
        fprintf(out,
                "speed of a rank, measured now: linear %.0f GFLOP/s, attention %.0f GFLOP/s, search %.2f "
                "Gkeys/s, decode %.2f Gweights/s\n",
                rates.linear / 1e9, rates.attention / 1e9, rates.search / 1e9, rates.decode / 1e9);
        fprintf(out, "predicted time: %.0f s on %d ranks, with answers of full length\n", seconds / plan->ranks,
                plan->ranks);
    }
    advice_print(plan, out);
    return ferror(out) || fflush(out) != 0 ? error_errno(err, "writing the plan") : 0;
}

/* "8192 tokens, full" and the like. */
static void describe_context(const struct plan *plan, char *out, size_t size)
{
    const int layers = plan->opened->model->shape.layers;
    char policy[256], other[256];
    layers_describe(plan->policies, layers, policy, sizeof policy);
    if (plan->limits.context == PLAN_UNBOUNDED)
        snprintf(out, size, "context without end, policy %s", policy);
    else
        snprintf(out, size, "context %" PRId64 ", policy %s", plan->limits.context, policy);
    for (int i = 1; i < plan->setup.n_settings; i++) {
        layers_describe(plan_policies(plan, i), layers, other, sizeof other);
        const char *relation = i != plan->setup.reference ? "beyond it"
                               : plan->options->against   ? "against"
                                                          : "receipts against";
        const size_t used = strlen(out);
        snprintf(out + used, size - used, ", %s %s", relation, other);
    }
}

/* What is not on GPUs where these compute: the layers of bounded memory are the host's, which takes its time. */
static void describe_device(const struct plan *plan, char *out, size_t size)
{
    const struct setup *setup = &plan->setup;
    const int all = setup->n_settings * plan->opened->model->shape.layers;
    bool bounded = false;
    for (int i = 0; i < all; i++)
        bounded |= !policy_goes_round(plan->policies[i].kind);
    if (!setup->cuda)
        out[0] = '\0';
    else
        snprintf(out, size, " on GPUs%s%s%s", setup->streamed ? ", weights streamed" : "",
                 setup->keys_on_host ? ", keys and values in the host's memory" : "",
                 bounded ? ", layers of bounded memory on the host" : "");
}

void plan_describe(const struct plan *plan, char *out, size_t size)
{
    const struct setup *setup = &plan->setup;
    char context[960], device[128], positions[POSITIONS_DESCRIPTION];
    describe_context(plan, context, sizeof context);
    describe_device(plan, device, sizeof device);
    positions_describe(plan->options, plan->opened->model, positions, sizeof positions);
    snprintf(out, size,
             "%" PRId64 " documents (%" PRId64 " done before), %" PRId64 " tokens, %" PRId64
             " chunks; %d ranks in %d ring groups of %d, %d threads a rank, %s%s, %s, %s, segments of %" PRId64,
             plan->n_documents, plan->done, plan->tokens, plan->chunks, plan->ranks, plan->ranks / setup->ring,
             setup->ring, setup->threads, dtype_name((enum dtype)setup->dtype), device, context, positions,
             setup->segment);
}
