/* summarize and score: a corpus through a session, from the command line to the results. Rank 0 plans and records;
 * the other ranks only work. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "pipeline/commands.h"
#include "pipeline/difference.h"
#include "pipeline/forecast.h"
#include "pipeline/identity.h"
#include "pipeline/report.h"
#include "pipeline/run.h"
#include "pipeline/session.h"

/* What rank 0 holds beside the session. */
struct documents_run {
    struct session *session;
    struct identity identity;
    struct corpus *corpus;
    struct results *results;
    struct plan *plan;
    struct progress *progress;
    struct meter *meter;
    struct run *run;
};

/* ---- before the work ---- */

/* The results there are of another run: says in what it differs. */
static int refuse_results(const struct documents_run *r, const struct results_run *before, struct error *err)
{
    const struct options *options = r->session->options;
    char what[DIFFERENCE];
    difference_find(before, &r->identity.run, what, sizeof what);
    return error_set(
        err, ERROR_USAGE,
        "%.200s holds results of other options or another model (%s): take another -o, or the same options",
        options->output, what);
}

static int open_results(struct documents_run *r, struct error *err)
{
    const struct options *options = r->session->options;
    report_hashing(options->model, r->session->opened.model_bytes, stderr);
    if (identity_make(&r->identity, options, &r->session->opened, err) != 0 ||
        !(r->results = results_open(options->output, &r->identity.run, err)))
        return -1;
    const struct results_run *before = results_before(r->results);
    if (before && strcmp(before->config_hash, r->identity.config_hash) != 0)
        return refuse_results(r, before, err);
    if (results_lost(r->results) > 0)
        log_warn("%s: %" PRId64 " documents are done again: the parts they were in are gone", options->output,
                 results_lost(r->results));
    return 0;
}

static int make_plan(struct documents_run *r, struct error *err)
{
    struct session *s = r->session;
    if (plan_check(s->options, &s->opened, err) != 0 || !(r->corpus = plan_corpus(s->options, err)) ||
        open_results(r, err) != 0)
        return -1;
    report_corpus(r->corpus, stderr);
    const struct plan_around around = {s->world.size, s->place, r->corpus, r->results};
    if (!(r->plan = plan_create(s->options, &s->opened, &around, err)))
        return -1;
    identity_complete(&r->identity, r->plan, s->hosts);
    s->setup = r->plan->setup;
    return 0;
}

static struct progress_totals totals(const struct plan *plan)
{
    struct progress_totals totals = {.documents = plan->n_documents};
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct work *work = &plan->documents[i].work;
        for (int64_t c = 0; c < work->chunks.count; c++) {
            const int64_t n = work->chunks.items[c].end_token - work->chunks.items[c].first_token;
            totals.tokens[PROGRESS_PREFILL] += n;
            totals.extra += forecast_extra(plan, work->setting, n);
        }
        if (plan->task->job == JOB_GENERATE)
            totals.tokens[PROGRESS_DECODE] += work->n_nodes * plan->limits.max_new;
    }
    return totals;
}

static int open_run(struct documents_run *r, struct error *err)
{
    struct progress_options options;
    const struct progress_totals all = totals(r->plan);
    const int groups = r->session->world.size / r->plan->setup.ring;
    char described[PLAN_DESCRIPTION];
    progress_defaults(&options, stderr);
    if (!(r->progress = progress_create(stderr, &options, &all, err)) ||
        !(r->meter = meter_create(r->progress, groups, &all, r->plan->done, err)))
        return -1;
    corpus_log(r->corpus);
    plan_describe(r->plan, described, sizeof described);
    progress_note(r->progress, "%s", described);
    log_info("%s", described);
    return (r->run = run_create(r->plan, r->results, r->meter, err)) ? 0 : -1;
}

/* ---- after the work ---- */

static enum error_code conclude(struct documents_run *r)
{
    const struct report_counts counts = report_count(r->plan);
    const int64_t undone = counts.of[RESULT_PENDING], failed = counts.of[RESULT_FAILED];
    const char *output = r->session->options->output;
    char closing[REPORT_CLOSING];
    report_closing(&counts, closing, sizeof closing);
    progress_note(r->progress, "%s", closing);
    log_info("%s", closing);
    progress_note(r->progress, "results: %s/results.h5 (longhaul export %s prints them)", output, output);
    if (undone > 0) {
        progress_note(r->progress,
                      "stopped with %" PRId64 " documents undone: the same command goes on; begun ones start over",
                      undone);
        return ERROR_INTERRUPTED;
    }
    const int64_t failed_now = failed - counts.failed_before - counts.kept;
    if (failed_now > 0)
        progress_note(r->progress, "%" PRId64 " documents failed: see the export, or %s/logs", failed_now, output);
    if (counts.kept > 0)
        progress_note(r->progress, "%" PRId64 " documents could not be read: their earlier answers are kept",
                      counts.kept);
    if (counts.failed_before > 0)
        progress_note(r->progress, "%" PRId64 " documents failed before: --retry-failed takes them again",
                      counts.failed_before);
    return failed > 0 ? ERROR_PARTIAL : ERROR_NONE;
}

static void clear(struct documents_run *r)
{
    run_free(r->run);
    meter_free(r->meter);
    progress_free(r->progress);
    plan_free(r->plan);
    corpus_free(r->corpus);
    results_close(r->results);
    identity_clear(&r->identity);
}

/* Rank 0's part of the work, and its end. */
static enum error_code lead(struct documents_run *r)
{
    struct error err = {0};
    const struct session_source source = run_source(r->run);
    session_work(r->session, &source);
    if (run_publish(r->run, &err) != 0)
        session_abort(&err);
    if (r->plan->task->job == JOB_SCORE && report_scores(r->plan, stdout, &err) != 0)
        session_abort(&err);
    return conclude(r);
}

int command_run(const struct options *options, enum error_code *code, struct error *err)
{
    struct session s;
    struct documents_run r = {.session = &s};
    int status = session_open(&s, options, err);
    const bool leads = status == 0 && s.world.rank == 0;
    if (status == 0)
        status = session_agree(&s, leads ? make_plan(&r, err) : 0, err);
    if (status == 0)
        status = session_start(&s, leads ? r.plan->policies : NULL, err);
    if (status == 0)
        status = session_agree(&s, leads ? open_run(&r, err) : 0, err);
    if (status == 0 && leads)
        *code = lead(&r);
    else if (status == 0)
        session_work(&s, NULL);
    clear(&r);
    session_close(&s, err);
    return status;
}
