#include "pipeline/meter.h"

#include <stdlib.h>

#include "base/num.h"

struct under_way {
    struct meter_job job;
    bool used;
    int64_t done[PROGRESS_PHASES];
};

struct meter {
    struct progress *progress;
    struct progress_totals totals;
    int groups;
    struct under_way *jobs; /* [groups] */
    int64_t documents_done;
    int64_t done[PROGRESS_PHASES]; /* of jobs that have ended */
    double extra_done;
};

struct meter *meter_create(struct progress *progress, int groups, const struct progress_totals *totals,
                           int64_t documents_done, struct error *err)
{
    struct meter *meter = calloc(1, sizeof *meter);
    struct under_way *jobs = calloc((size_t)groups, sizeof *jobs);
    if (!meter || !jobs) {
        free(meter);
        free(jobs);
        error_set(err, ERROR_RESOURCE, "no memory to follow %d groups", groups);
        return NULL;
    }
    *meter = (struct meter){
        .progress = progress, .totals = *totals, .groups = groups, .jobs = jobs, .documents_done = documents_done};
    return meter;
}

void meter_free(struct meter *meter)
{
    if (!meter)
        return;
    free(meter->jobs);
    free(meter);
}

static struct under_way *find(struct meter *meter, int64_t id)
{
    for (int i = 0; i < meter->groups; i++)
        if (meter->jobs[i].used && meter->jobs[i].job.id == id)
            return &meter->jobs[i];
    return NULL;
}

/* How much more a token takes than the first rises with the tokens before it. */
static double extra_done(const struct under_way *job)
{
    const double share = (double)job->done[PROGRESS_PREFILL] / (double)i64_max(1, job->job.reads);
    return job->job.extra * share * share;
}

/* The phase shown is that of most groups. */
static void show(struct meter *meter, const char *document)
{
    struct progress_state state = {.documents_done = meter->documents_done, .extra_done = meter->extra_done};
    int decoding = 0, busy = 0;
    for (int phase = 0; phase < PROGRESS_PHASES; phase++)
        state.tokens_done[phase] = meter->done[phase];
    for (int i = 0; i < meter->groups; i++) {
        const struct under_way *job = &meter->jobs[i];
        if (!job->used)
            continue;
        busy++;
        decoding += job->done[PROGRESS_DECODE] > 0;
        document = document ? document : job->job.document;
        for (int phase = 0; phase < PROGRESS_PHASES; phase++)
            state.tokens_done[phase] += job->done[phase];
        state.extra_done += extra_done(job);
    }
    state.document = document ? document : "";
    state.phase = 2 * decoding > busy ? PROGRESS_DECODE : PROGRESS_PREFILL;
    progress_update(meter->progress, &state);
}

void meter_begin(struct meter *meter, const struct meter_job *job)
{
    if (!job->foreseen) {
        meter->totals.tokens[PROGRESS_PREFILL] += job->reads;
        meter->totals.tokens[PROGRESS_DECODE] += job->writes;
        meter->totals.extra += job->extra;
        progress_set_totals(meter->progress, &meter->totals);
    }
    for (int i = 0; i < meter->groups; i++)
        if (!meter->jobs[i].used) {
            meter->jobs[i] = (struct under_way){.job = *job, .used = true};
            break;
        }
    show(meter, job->document);
}

void meter_progress(struct meter *meter, const struct job_progress *progress)
{
    struct under_way *job = find(meter, progress->id);
    if (!job)
        return;
    job->done[PROGRESS_PREFILL] = i64_min(progress->prefilled, job->job.reads); /* the prompt's words aside */
    job->done[PROGRESS_DECODE] = progress->generated;
    show(meter, job->job.document);
}

void meter_end(struct meter *meter, int64_t id, int64_t written)
{
    struct under_way *job = find(meter, id);
    if (!job)
        return;
    meter->done[PROGRESS_PREFILL] += job->job.reads;
    meter->extra_done += job->job.extra;
    meter->done[PROGRESS_DECODE] += written;
    meter->totals.tokens[PROGRESS_DECODE] -= job->job.writes - written;
    job->used = false;
    progress_set_totals(meter->progress, &meter->totals);
    show(meter, NULL);
}

void meter_document_done(struct meter *meter, const char *document, const char *outcome)
{
    meter->documents_done++;
    progress_document_done(meter->progress, document, outcome);
}
