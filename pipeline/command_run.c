/* summarize and score: the whole way from the command line to the results, on every rank.
 *
 * Rank 0 plans; all ranks learn the set-up, open the model and build their group's engine; then rank 0 deals and
 * works, the other leaders ask and work, and the ranks behind a leader follow it. Until the engines stand, an error
 * anywhere ends every rank quietly with that error (agree); from then on it ends the whole MPI job at once.
 */
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "io/durable.h"
#include "pipeline/commands.h"
#include "pipeline/deal.h"
#include "pipeline/identity.h"
#include "pipeline/report.h"
#include "pipeline/run.h"

/* How long rank 0 sleeps when it has nothing to compute but others have. */
enum { IDLE_MICROSECONDS = 500 };

/* What one rank holds through the run. From identity on it is rank 0's alone. */
struct session {
    const struct options *options;
    struct comm world, node, group;
    struct opened_model opened;
    struct plan_setup setup;
    struct policy_spec *policies; /* [ENGINE_SETTINGS][layers], the engine's */
    struct engine *engine;

    struct identity identity;
    char *hosts; /* all ranks' hosts, each once, by ',' */
    struct corpus *corpus;
    struct results *results;
    struct plan *plan;
    struct progress *progress;
    struct meter *meter;
    struct run *run;
    struct dealer *dealer;
};

/* Set by SIGTERM and SIGUSR1: a batch system's warning that time is running out. */
static volatile sig_atomic_t asked_to_stop;

static void on_signal(int number)
{
    (void)number;
    asked_to_stop = 1;
}

static void watch_signals(void)
{
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

/* Every rank says whether it has failed; if any has, all end with the error of the lowest such rank. */
static int agree(const struct comm *world, int status, struct error *err)
{
    struct error mine = *err, failure;
    int64_t worst;
    if (comm_max(world, status != 0 ? world->size - world->rank : 0, &worst, &failure) != 0)
        comm_abort(world, status != 0 ? &mine : &failure);
    if (worst == 0)
        return 0;
    if (comm_broadcast(world, &mine, sizeof mine, world->size - (int)worst, &failure) != 0)
        comm_abort(world, &failure);
    *err = mine;
    return -1;
}

/* ---- before the engines stand ---- */

/* Everyone's host names to rank 0, each once. */
static int gather_hosts(struct session *s, struct error *err)
{
    enum { NAME = 65 };
    char mine[NAME] = "";
    gethostname(mine, NAME - 1);
    char *names = calloc((size_t)s->world.size, NAME);
    s->hosts = calloc((size_t)s->world.size, NAME + 1);
    if (!names || !s->hosts) {
        free(names);
        return error_set(err, ERROR_RESOURCE, "no memory for the names of %d hosts", s->world.size);
    }
    int status = comm_check(MPI_Gather(mine, NAME, MPI_CHAR, names, NAME, MPI_CHAR, 0, s->world.mpi),
                            "gathering host names", err);
    for (int rank = 0; status == 0 && s->world.rank == 0 && rank < s->world.size; rank++) {
        const char *name = names + (size_t)rank * NAME;
        if (rank > 0 && strcmp(name, name - NAME) == 0)
            continue;
        strcat(s->hosts, rank > 0 ? "," : "");
        strcat(s->hosts, name);
    }
    free(names);
    return status;
}

static int open_results(struct session *s, struct error *err)
{
    const struct options *options = s->options;
    if (identity_make(&s->identity, options, &s->opened, err) != 0 ||
        !(s->results = results_open(options->output, &s->identity.run, err)))
        return -1;
    const char *before = results_config_hash(s->results);
    if (before[0] != '\0' && strcmp(before, s->identity.config_hash) != 0)
        return error_set(err, ERROR_USAGE,
                         "%s holds results of other options or another model: take another -o, or the same options",
                         options->output);
    if (results_lost(s->results) > 0)
        log_warn("%s: %" PRId64 " documents are done again: the parts they were in are gone", options->output,
                 results_lost(s->results));
    return 0;
}

/* Rank 0: what there is to do. */
static int make_plan(struct session *s, struct error *err)
{
    if (plan_check(s->options, &s->opened, err) != 0 || !(s->corpus = plan_corpus(s->options, err)) ||
        open_results(s, err) != 0)
        return -1;
    const struct plan_around around = {s->world.size, s->node.size, s->corpus, s->results};
    if (!(s->plan = plan_create(s->options, &s->opened, &around, err)))
        return -1;
    identity_complete(&s->identity, s->plan, s->hosts);
    s->setup = s->plan->setup;
    return 0;
}

static int open_log(const struct session *s, struct error *err)
{
    char *path = NULL;
    enum log_level level;
    if (log_level_parse(s->options->log_level, &level, err) != 0)
        return -1;
    if (asprintf(&path, "%s/logs", s->options->output) < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the name of the log");
    int status = durable_make_directories(path, err);
    free(path);
    if (status == 0 && asprintf(&path, "%s/logs/rank-%04d.log", s->options->output, s->world.rank) < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the name of the log");
    if (status == 0) {
        status = log_open(path, s->world.rank, level, err);
        free(path);
    }
    return status;
}

static int prepare(struct session *s, struct error *err)
{
    if (agree(&s->world, opened_model_open(&s->opened, s->options->model, err), err) != 0 ||
        agree(&s->world, gather_hosts(s, err), err) != 0 ||
        agree(&s->world, s->world.rank == 0 ? make_plan(s, err) : 0, err) != 0 ||
        comm_broadcast(&s->world, &s->setup, sizeof s->setup, 0, err) != 0)
        return -1;
    return agree(&s->world, open_log(s, err), err);
}

/* ---- the engine and what it calls back ---- */

/* Rank 0 serves the other groups from within its own work. */
static int poll_dealer(void *context, struct error *err)
{
    struct session *s = context;
    if (asked_to_stop)
        run_stop(s->run);
    return dealer_poll(s->dealer, err);
}

static int report_progress(void *context, const struct job_progress *progress, struct error *err)
{
    struct session *s = context;
    if (s->group.rank != 0)
        return 0;
    if (s->world.rank != 0)
        return deal_report(&s->world, progress, err);
    run_progress(s->run, progress);
    return 0;
}

/* Where there is nothing to compute, because all of it has been done, no weights are packed. */
static int build_engine(struct session *s, struct error *err)
{
    struct engine_options options = {
        .model = s->opened.model,
        .tokenizer = s->opened.tokenizer,
        .group = &s->group,
        .node = &s->node,
        .dtype = (enum dtype)s->setup.dtype,
        .scores = s->setup.scores != 0,
        .threads = s->setup.threads,
        .segment = s->setup.segment,
        .max_new = s->setup.max_new,
        .hooks = {s->world.rank == 0 ? poll_dealer : NULL, report_progress, s},
    };
    if (s->setup.n_settings == 0)
        return 0;
    const size_t layers = (size_t)s->opened.model->shape.layers;
    if (!(s->policies = calloc(ENGINE_SETTINGS * layers, sizeof *s->policies)))
        return error_set(err, ERROR_RESOURCE, "no memory for the policies of %zu layers", layers);
    if (plan_engine_settings(&s->setup, s->options, s->opened.model, s->policies, &options, err) != 0)
        return -1;
    return (s->engine = engine_create(&options, err)) ? 0 : -1;
}

/* ---- working ---- */

/* The leader's job goes to the ranks behind it. */
static int share_job(struct session *s, struct job *job, struct error *err)
{
    const int leads = s->group.rank == 0;
    if (s->group.size == 1)
        return 0;
    int32_t *tokens = job->tokens;
    if (comm_broadcast(&s->group, job, sizeof *job, 0, err) != 0)
        return -1;
    const size_t bytes = (size_t)job->n_tokens * sizeof *tokens;
    job->tokens = leads ? tokens : malloc(bytes ? bytes : 1);
    if (!job->tokens && job->n_tokens > 0)
        return error_set(err, ERROR_RESOURCE, "no memory for a job of %lld tokens", (long long)job->n_tokens);
    return comm_broadcast(&s->group, job->tokens, bytes, 0, err);
}

/* Rank 0's group takes one job through; false when there was none. */
static int work_on_one(struct session *s, bool *worked, struct error *err)
{
    struct job job;
    *worked = run_take(s->run, &job);
    if (!*worked)
        return 0;
    struct job_result result = {0};
    int status = share_job(s, &job, err);
    if (status == 0)
        status = engine_run(s->engine, &job, &result, err);
    if (status == 0)
        status = run_give(s->run, &result, err);
    job_free(&job);
    job_result_free(&result);
    return status;
}

static bool take_job(void *context, struct job *job)
{
    return run_take(context, job);
}

static int give_result(void *context, struct job_result *result, struct error *err)
{
    return run_give(context, result, err);
}

static void give_progress(void *context, const struct job_progress *progress)
{
    run_progress(context, progress);
}

static int lead_world(struct session *s, struct error *err)
{
    while (!run_over(s->run)) {
        bool worked;
        if (poll_dealer(s, err) != 0 || work_on_one(s, &worked, err) != 0 || run_check(s->run, err) != 0)
            return -1;
        if (!worked && !run_over(s->run))
            usleep(IDLE_MICROSECONDS);
    }
    struct job stop = {.kind = JOB_STOP};
    if (share_job(s, &stop, err) != 0 || dealer_stop(s->dealer, err) != 0)
        return -1;
    return run_publish(s->run, err);
}

/* All other ranks: jobs come from rank 0 through the group's leader. */
static int follow(struct session *s, struct error *err)
{
    for (;;) {
        struct job job = {0};
        struct job_result result = {0};
        if ((s->group.rank == 0 && deal_ask(&s->world, &job, err) != 0) || share_job(s, &job, err) != 0)
            return -1;
        if (job.kind == JOB_STOP) {
            job_free(&job);
            return 0;
        }
        int status = engine_run(s->engine, &job, &result, err);
        if (status == 0 && s->group.rank == 0)
            status = deal_answer(&s->world, &result, err);
        job_free(&job);
        job_result_free(&result);
        if (status != 0)
            return -1;
    }
}

/* ---- rank 0's view of the run ---- */

static struct progress_totals totals(const struct plan *plan)
{
    struct progress_totals totals = {.documents = plan->n_documents};
    for (int64_t i = 0; i < plan->n_documents; i++) {
        const struct work *work = &plan->documents[i].work;
        for (int64_t c = 0; c < work->chunks.count; c++)
            totals.tokens[PROGRESS_PREFILL] += work->chunks.items[c].end_token - work->chunks.items[c].first_token;
        if (plan->task->job == JOB_GENERATE)
            totals.tokens[PROGRESS_DECODE] += work->n_nodes * plan->limits.max_new;
    }
    return totals;
}

static int open_run(struct session *s, struct error *err)
{
    struct progress_options options;
    const struct progress_totals all = totals(s->plan);
    char described[PLAN_DESCRIPTION];
    const struct deal_source source = {take_job, give_result, give_progress, NULL};
    progress_defaults(&options, stderr);
    if (!(s->progress = progress_create(stderr, &options, &all, err)) ||
        !(s->meter = meter_create(s->progress, s->world.size / s->setup.ring, &all, s->plan->done, err)))
        return -1;
    plan_describe(s->plan, described, sizeof described);
    progress_note(s->progress, "%s", described);
    log_info("%s", described);
    if (s->engine)
        log_info("attention kernel %s, weights %s", engine_kernel_name(s->engine), s->options->model);
    if (!(s->run = run_create(s->plan, s->results, s->meter, err)))
        return -1;
    struct deal_source of_run = source;
    of_run.context = s->run;
    return (s->dealer = dealer_create(&s->world, s->setup.ring, &of_run, err)) ? 0 : -1;
}

/* The hidden share says how much of the ring's traffic cost no time. */
static void log_end(const struct session *s)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    log_info("peak memory %.1f MiB", (double)usage.ru_maxrss / 1024);
    if (s->world.rank == 0 && s->engine)
        log_info("planned: %.1f MiB of packed weights (shared by a node's ranks) and %.1f MiB a rank, beside the "
                 "%.1f MiB of the mapped model file and the corpus",
                 (double)s->plan->memory.weights / (1 << 20), (double)s->plan->memory.forward / (1 << 20),
                 (double)s->opened.model_bytes / (1 << 20));
    const struct ring_stats stats = s->engine ? engine_ring_stats(s->engine) : (struct ring_stats){0};
    if (stats.hops > 0)
        log_info("ring: %" PRId64 " hops, %.1f MiB sent, %.2f s under way, %.0f%% of it hidden behind computing",
                 stats.hops, (double)stats.bytes_sent / (1 << 20), stats.transfer_seconds,
                 stats.transfer_seconds > 0 ? 100 * (1 - stats.wait_seconds / stats.transfer_seconds) : 100.0);
}

static enum error_code conclude(struct session *s)
{
    const int64_t undone = run_undone(s->run), failed = run_failed(s->run);
    if (s->plan->task->job == JOB_SCORE)
        report_scores(s->plan, stdout);
    progress_note(s->progress, "results: %s/results.h5 (longhaul export %s prints them)", s->options->output,
                  s->options->output);
    if (undone > 0) {
        progress_note(s->progress, "stopped with %" PRId64 " documents undone: the same command goes on", undone);
        return ERROR_INTERRUPTED;
    }
    if (failed > 0)
        progress_note(s->progress, "%" PRId64 " documents failed: see the export, or %s/logs", failed,
                      s->options->output);
    return failed > 0 ? ERROR_PARTIAL : ERROR_NONE;
}

static void session_close(struct session *s)
{
    dealer_free(s->dealer);
    run_free(s->run);
    meter_free(s->meter);
    progress_free(s->progress);
    plan_free(s->plan);
    corpus_free(s->corpus);
    results_close(s->results);
    identity_clear(&s->identity);
    free(s->hosts);
    engine_free(s->engine);
    free(s->policies);
    opened_model_close(&s->opened);
    comm_free(&s->group);
    comm_free(&s->node);
    log_close();
}

int command_run(const struct options *options, enum error_code *code, struct error *err)
{
    struct session s = {.options = options, .group.mpi = MPI_COMM_NULL, .node.mpi = MPI_COMM_NULL};
    if (comm_init(&s.world, err) != 0)
        return -1;
    watch_signals();
    int status = agree(&s.world, comm_node(&s.world, &s.node, err), err);
    if (status == 0)
        status = prepare(&s, err);
    if (status == 0)
        status = comm_split(&s.world, s.world.rank / s.setup.ring, &s.group, err);
    if (status == 0)
        status = agree(&s.world, build_engine(&s, err), err);
    if (status == 0)
        status = agree(&s.world, s.world.rank == 0 ? open_run(&s, err) : 0, err);
    if (status == 0) {
        if ((s.world.rank == 0 ? lead_world(&s, err) : follow(&s, err)) != 0) {
            log_error("%s", err->text);
            comm_abort(&s.world, err);
        }
        log_end(&s);
        *code = s.world.rank == 0 ? conclude(&s) : ERROR_NONE;
    }
    if (s.world.rank != 0)
        err->text[0] = '\0'; /* rank 0 tells the user, once */
    session_close(&s);
    comm_finish(&s.world);
    return status;
}
