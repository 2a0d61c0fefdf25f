#include "pipeline/run.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/fnv.h"
#include "base/log.h"
#include "pipeline/forecast.h"
#include "pipeline/record.h"
#include "pipeline/report.h"

/* A publication comes so many seconds after the last one at the earliest: a corpus of tiny files must not become as
 * many parts. */
enum { PUBLISH_SECONDS = 5 };

struct run {
    struct plan *plan;
    struct results *results;
    struct meter *meter;
    int64_t open, failed; /* documents; failed also in earlier runs, unless they are tried again */
    int64_t running;      /* jobs */
    bool stopped;
    bool none_ready;      /* no job, until a result comes: leaders that have nothing to do ask very often */
    double published;     /* when */
    int64_t unpublished;  /* documents */
    double *begun;        /* [n_documents]: when the first job was handed out, 0 before */
    struct error failure; /* take_job cannot return one: check_failure does */
};

/* A job's id names its document and node. */
enum { NODE_BITS = 32 };

static int64_t job_id(int64_t document, int64_t node)
{
    return document << NODE_BITS | node;
}

static struct plan_document *document_of(const struct run *run, int64_t id)
{
    return &run->plan->documents[id >> NODE_BITS];
}

static int64_t node_of(int64_t id)
{
    return id & (((int64_t)1 << NODE_BITS) - 1);
}

/* ---- documents that are done ---- */

static int record(struct run *run, int64_t index, struct error *err)
{
    struct plan_document *document = &run->plan->documents[index];
    const double wall = run->begun[index] > 0 ? clock_seconds() - run->begun[index] : 0;
    if (record_document(run->plan, index, wall, run->results, err) != 0)
        return error_wrap(err, "%s", document->id);
    char outcome[REPORT_OUTCOME];
    report_outcome(document, outcome, sizeof outcome);
    meter_document_done(run->meter, document->id, outcome);
    log_info("%s: %s", document->id, outcome);
    run->failed += document->status == RESULT_FAILED;
    work_clear(&document->work);
    run->unpublished++;
    return 0;
}

int run_publish(struct run *run, struct error *err)
{
    run->published = clock_seconds();
    if (run->unpublished == 0)
        return 0;
    log_debug("publishing %" PRId64 " documents", run->unpublished);
    if (results_publish(run->results, err) != 0)
        return -1;
    run->unpublished = 0;
    return 0;
}

/* Too many failures end the run; what they were is published first. Those of earlier runs count, so that a run that
 * was killed ends where one that was not would have. */
static int check_error_rate(struct run *run, struct error *err)
{
    const double most = run->plan->options->max_error_rate * (double)run->plan->n_documents;
    if (run->failed == 0 || (double)run->failed <= most)
        return 0;
    if (run_publish(run, err) != 0)
        return -1;
    return error_set(err, ERROR_INPUT,
                     "%" PRId64 " of %" PRId64 " documents failed, more than --max-error-rate %g allows",
                     run->failed, run->plan->n_documents, run->plan->options->max_error_rate);
}

/* The status of a document whose work is over, with the reason where something was lost. */
static void judge(struct plan_document *document)
{
    const struct work *work = &document->work;
    const size_t size = sizeof document->reason;
    document->status = work->failed ? RESULT_FAILED : work->dropped > 0 ? RESULT_PARTIAL : RESULT_OK;
    if (work->failed)
        error_shorten(work->failure.text, document->reason, size);
    else if (work->dropped > 0)
        snprintf(document->reason, size, "--truncate left out its last %" PRId64 " tokens", work->dropped);
    else if (document->unknown_bytes > 0)
        snprintf(document->reason, size, "%" PRId64 " bytes have no token in this model's vocabulary",
                 document->unknown_bytes);
}

/* A document is settled when nothing of it runs, and all of it is done or it has failed. */
static int settle(struct run *run, int64_t index, struct error *err)
{
    struct plan_document *document = &run->plan->documents[index];
    if (!work_over(&document->work))
        return 0;
    judge(document);
    run->open--;
    if (record(run, index, err) != 0)
        return -1;
    return check_error_rate(run, err);
}

/* ---- life ---- */

struct run *run_create(struct plan *plan, struct results *results, struct meter *meter, struct error *err)
{
    struct run *run = calloc(1, sizeof *run);
    double *begun = calloc((size_t)plan->n_documents + 1, sizeof *begun);
    if (!run || !begun) {
        free(run);
        free(begun);
        error_set(err, ERROR_RESOURCE, "no memory for a run of %" PRId64 " documents", plan->n_documents);
        return NULL;
    }
    *run = (struct run){
        .plan = plan, .results = results, .meter = meter, .published = clock_seconds(), .begun = begun};
    for (int64_t i = 0; i < plan->n_documents; i++) {
        results_place(results, plan->documents[i].id, i);
        if (plan->documents[i].done)
            run->failed += plan->documents[i].status == RESULT_FAILED && !plan->documents[i].kept;
        else if (plan->documents[i].status == RESULT_PENDING)
            run->open++;
        else if (record(run, i, err) != 0) {
            run_free(run);
            return NULL;
        }
    }
    if (check_error_rate(run, err) != 0) {
        run_free(run);
        return NULL;
    }
    return run;
}

void run_free(struct run *run)
{
    if (!run)
        return;
    free(run->begun);
    free(run);
}

static int check_failure(const struct run *run, struct error *err)
{
    if (run->failure.code == ERROR_NONE)
        return 0;
    *err = run->failure;
    return -1;
}

static int check(void *context, struct error *err)
{
    struct run *run = context;
    if (check_failure(run, err) != 0)
        return -1;
    const bool due = run->unpublished > 0 && clock_seconds() - run->published >= PUBLISH_SECONDS;
    return due ? run_publish(run, err) : 0;
}

static bool is_over(void *context)
{
    const struct run *run = context;
    return run->running == 0 && (run->open == 0 || run->stopped);
}

static void stop(void *context)
{
    struct run *run = context;
    run->stopped = true;
}

/* ---- jobs ---- */

static bool find_costliest(const struct run *run, int64_t *document, int64_t *node)
{
    int64_t most = -1;
    for (int64_t i = 0; i < run->plan->n_documents; i++) {
        const struct plan_document *candidate = &run->plan->documents[i];
        const int64_t ready = candidate->status == RESULT_PENDING ? work_ready(&candidate->work) : -1;
        if (ready < 0)
            continue;
        const int64_t cost = work_cost(&candidate->work, &run->plan->limits, ready);
        if (cost > most) {
            most = cost;
            *document = i;
            *node = ready;
        }
    }
    return most >= 0;
}

static struct sample_options sampling(const struct options *options)
{
    struct sample_options sampling = sample_defaults();
    sampling.temperature = (float)options->temperature;
    sampling.top_k = options->top_k;
    sampling.top_p = (float)options->top_p;
    sampling.min_p = (float)options->min_p;
    sampling.repeat_penalty = (float)options->repeat_penalty;
    sampling.seed = (uint64_t)options->seed;
    return sampling;
}

/* Of the name and not of the place in the corpus: files that come or go change no answer to another one. */
static uint64_t stream_of(const struct plan_document *document, int64_t node)
{
    return fnv_bytes(fnv_bytes(FNV_START, document->id, strlen(document->id)), &node, sizeof node);
}

static void begin_metering(struct run *run, int64_t document, int64_t node, const struct job *job)
{
    const struct work *work = &run->plan->documents[document].work;
    const bool foreseen = node != WORK_RECEIPT && work->nodes[node].chunk >= 0;
    const int64_t reads = work_cost(work, &run->plan->limits, node);
    const struct meter_job metered = {
        .id = job->id,
        .reads = reads,
        .writes = job->kind == JOB_GENERATE ? job->max_new : 0,
        .extra = foreseen ? forecast_extra(run->plan, work->setting, reads) : 0,
        .foreseen = foreseen,
        .document = run->plan->documents[document].id,
    };
    meter_begin(run->meter, &metered);
}

static bool take_job(void *context, struct job *out)
{
    struct run *run = context;
    int64_t document, node;
    if (run->stopped || run->failure.code != ERROR_NONE || run->none_ready)
        return false;
    run->none_ready = !find_costliest(run, &document, &node);
    if (run->none_ready)
        return false;
    const struct work_limits *limits = &run->plan->limits;
    const struct work *work = &run->plan->documents[document].work;
    const bool compares = limits->compares || node == WORK_RECEIPT;
    *out = (struct job){
        .id = job_id(document, node),
        .kind = node == WORK_RECEIPT ? JOB_PROBE : run->plan->task->job,
        .probes = compares ? RECEIPT_PROBES : 0,
        .reference = compares ? run->plan->setup.reference : 0,
        .probes_from = node == WORK_RECEIPT ? limits->intact[work->setting] : 0,
        .max_new = limits->max_new,
        .sampling = sampling(run->plan->options),
        .stream = stream_of(&run->plan->documents[document], node),
    };
    if (work_take(&run->plan->documents[document].work, node, &run->plan->prompter, out, &run->failure) != 0)
        return false;
    if (run->begun[document] == 0)
        run->begun[document] = clock_seconds();
    run->running++;
    begin_metering(run, document, node, out);
    log_debug("%s: node %" PRId64 " of %" PRId64 " tokens handed out", run->plan->documents[document].id, node,
              out->n_tokens);
    return true;
}

static int give_result(void *context, struct job_result *result, struct error *err)
{
    struct run *run = context;
    struct plan_document *document = document_of(run, result->id);
    run->running--;
    run->none_ready = false;
    if (check_failure(run, err) != 0)
        return -1;
    log_debug("%s: node %" PRId64 " done in %.2f s of prefill, %.2f s of decode", document->id, node_of(result->id),
              result->prefill_seconds, result->decode_seconds);
    meter_end(run->meter, result->id, result->tokens ? result->count : 0);
    if (work_give(&document->work, node_of(result->id), &run->plan->limits, result, err) != 0)
        return -1;
    return settle(run, result->id >> NODE_BITS, err);
}

static void give_progress(void *context, const struct job_progress *progress)
{
    struct run *run = context;
    meter_progress(run->meter, progress);
}

struct session_source run_source(struct run *run)
{
    return (struct session_source){{take_job, give_result, give_progress, run}, is_over, check, stop};
}
