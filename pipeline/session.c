#include "pipeline/session.h"

#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/log.h"
#include "io/durable.h"
#include "pipeline/hosts.h"
#include "pipeline/report.h"

/* How long rank 0 sleeps when it has nothing to compute but others have. */
enum { IDLE_MICROSECONDS = 500 };

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

int session_agree(const struct session *session, int status, struct error *err)
{
    return comm_agree(&session->world, status, err);
}

/* ---- before the engines stand ---- */

/* Everyone's host names to rank 0. */
static int gather_hosts(struct session *s, struct error *err)
{
    char mine[HOST_NAME] = "";
    gethostname(mine, HOST_NAME - 1);
    char(*names)[HOST_NAME] = s->world.rank == 0 ? calloc((size_t)s->world.size, sizeof *names) : NULL;
    int status = 0;
    if (s->world.rank == 0 && !names)
        status = error_set(err, ERROR_RESOURCE, "no memory for the names of %d hosts", s->world.size);
    if (session_agree(s, status, err) != 0)
        return -1;
    status = comm_check(MPI_Gather(mine, HOST_NAME, MPI_CHAR, names, HOST_NAME, MPI_CHAR, 0, s->world.mpi),
                        "gathering host names", err);
    if (status == 0 && s->world.rank == 0 &&
        !(s->hosts = hosts_join((const char(*)[HOST_NAME])names, s->world.size)))
        status = error_set(err, ERROR_RESOURCE, "no memory for the names of %d hosts", s->world.size);
    free(names);
    return status;
}

int session_open(struct session *session, const struct options *options, struct error *err)
{
    *session = (struct session){
        .options = options, .world.mpi = MPI_COMM_NULL, .node.mpi = MPI_COMM_NULL, .group.mpi = MPI_COMM_NULL};
    if (comm_init(&session->world, err) != 0) {
        session->world.mpi = MPI_COMM_NULL;
        return -1;
    }
    watch_signals();
    if (session_agree(session, comm_node(&session->world, &session->node, err), err) != 0 ||
        session_agree(session, opened_model_open(&session->opened, options, err), err) != 0 ||
        session_agree(session, place_survey(options, &session->world, &session->node, &session->place, err), err) !=
            0)
        return -1;
    return session_agree(session, gather_hosts(session, err), err);
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

/* ---- the engine and what it calls back ---- */

/* Rank 0 serves the other groups, and does what is due, from within its own work. */
static int poll_dealer(void *context, struct error *err)
{
    struct session *s = context;
    if (asked_to_stop)
        s->source->stop(s->source->jobs.context);
    return dealer_poll(s->dealer, err) == 0 ? s->source->check(s->source->jobs.context, err) : -1;
}

static int report_progress(void *context, const struct job_progress *progress, struct error *err)
{
    struct session *s = context;
    if (s->group.rank != 0)
        return 0;
    if (s->world.rank != 0)
        return deal_report(&s->world, progress, err);
    s->source->jobs.progress(s->source->jobs.context, progress);
    return 0;
}

/* What needs no other rank: the device, and what the engine is to be. */
static int describe_engine(struct session *s, struct engine_options *options, struct error *err)
{
    const struct setup_machine machine = {.options = s->options, .model = s->opened.model, .policies = s->policies};
    setup_engine(&s->setup, &machine, options);
    if (!(options->device = setup_device(&s->setup, s->node.rank, err)))
        return -1;
    if (s->setup.cuda)
        log_info("GPU %s at %s", options->device->model, options->device->place);
    options->tokenizer = s->opened.tokenizer;
    options->world = &s->world;
    options->group = &s->group;
    options->node = &s->node;
    options->hooks = (struct engine_hooks){s->world.rank == 0 ? poll_dealer : NULL, report_progress, s};
    return 0;
}

/* Rank 0's to all. */
static int share_policies(struct session *s, const struct policy_spec *policies, struct error *err)
{
    const int layers = s->opened.model->shape.layers;
    const size_t bytes = (size_t)(s->setup.n_settings * layers) * sizeof *s->policies;
    int status = 0;
    if (!(s->policies = malloc(bytes)))
        status = error_set(err, ERROR_RESOURCE, "no memory for the policies of %d layers", layers);
    else if (s->world.rank == 0)
        memcpy(s->policies, policies, bytes);
    return session_agree(s, status, err) == 0 ? comm_broadcast(&s->world, s->policies, bytes, 0, err) : -1;
}

static int build_engine(struct session *s, const struct policy_spec *policies, struct error *err)
{
    struct engine_options options;
    if (s->setup.n_settings == 0)
        return 0;
    if (share_policies(s, policies, err) != 0 || session_agree(s, describe_engine(s, &options, err), err) != 0)
        return -1;
    return (s->engine = engine_create(&options, err)) ? 0 : -1;
}

int session_start(struct session *session, const struct policy_spec *policies, struct error *err)
{
    if (comm_broadcast(&session->world, &session->setup, sizeof session->setup, 0, err) != 0 ||
        session_agree(session, open_log(session, err), err) != 0 ||
        comm_split(&session->world, session->world.rank / session->setup.ring, &session->group, err) != 0 ||
        build_engine(session, policies, err) != 0)
        return -1;
    if (!session->engine)
        return 0;
    log_info("attention kernel %s, weights %s", engine_kernel_name(session->engine), session->options->model);
    const char *transport = engine_transport_name(session->engine);
    if (session->world.rank == 0 && session->setup.cuda && transport)
        report_ring(session->setup.ring, transport, stderr);
    return 0;
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
    const struct deal_source *jobs = &s->source->jobs;
    struct job job;
    *worked = jobs->take(jobs->context, &job);
    if (!*worked)
        return 0;
    struct job_result result = {0};
    int status = share_job(s, &job, err);
    if (status == 0)
        status = engine_run(s->engine, &job, &result, err);
    if (status == 0)
        status = jobs->give(jobs->context, &result, err);
    job_free(&job);
    job_result_free(&result);
    return status;
}

static int lead_world(struct session *s, struct error *err)
{
    const struct session_source *source = s->source;
    void *context = source->jobs.context;
    if (!(s->dealer = dealer_create(&s->world, s->setup.ring, &source->jobs, err)))
        return -1;
    while (!source->over(context)) {
        bool worked;
        if (poll_dealer(s, err) != 0 || work_on_one(s, &worked, err) != 0)
            return -1;
        if (!worked && !source->over(context))
            usleep(IDLE_MICROSECONDS);
    }
    struct job stop = {.kind = JOB_STOP};
    return share_job(s, &stop, err) == 0 && dealer_stop(s->dealer, err) == 0 ? 0 : -1;
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

/* The hidden share says how much of the ring's traffic cost no time. */
static void log_end(const struct session *s)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    log_info("peak memory %.1f MiB", (double)usage.ru_maxrss / 1024);
    if (s->world.rank == 0 && s->engine)
        log_info("planned: %.1f MiB of packed weights (shared by a node's ranks), %.1f MiB a rank and %.1f MiB of "
                 "documents on rank 0, beside the %.1f MiB of the mapped model file",
                 (double)s->setup.memory.weights / (1 << 20), (double)s->setup.memory.forward / (1 << 20),
                 (double)s->setup.documents / (1 << 20), (double)s->opened.model_bytes / (1 << 20));
    if (s->world.rank == 0 && s->engine && s->setup.cuda)
        log_info("planned on the GPU: %.1f MiB a rank", (double)s->setup.memory.device / (1 << 20));
    const struct ring_stats stats = s->engine ? engine_ring_stats(s->engine) : (struct ring_stats){0};
    if (stats.hops > 0)
        log_info("ring: %" PRId64 " hops, %.1f MiB sent, %.2f s under way, %.0f%% of it hidden behind computing",
                 stats.hops, (double)stats.bytes_sent / (1 << 20), stats.transfer_seconds,
                 stats.transfer_seconds > 0 ? 100 * (1 - stats.wait_seconds / stats.transfer_seconds) : 100.0);
    if (stats.attend_seconds > 0)
        log_info("full attention: %.2f s, and %.2f s of packing keys for it", stats.attend_seconds,
                 stats.pack_seconds);
    if (stats.passed_kv + stats.passed_q > 0)
        log_info("ring: keys went round %" PRId64 " times, queries %" PRId64
                 "; predicted %.2f s had it always been keys, %.2f s queries; it took %.2f s",
                 stats.passed_kv, stats.passed_q, stats.predicted_kv_seconds, stats.predicted_q_seconds,
                 stats.round_seconds);
}

void session_abort(const struct error *err)
{
    log_error("%s", err->text);
    comm_abort(err);
}

void session_work(struct session *session, const struct session_source *source)
{
    struct error err = {0};
    session->source = source;
    if ((session->world.rank == 0 ? lead_world(session, &err) : follow(session, &err)) != 0)
        session_abort(&err);
    log_end(session);
}

void session_close(struct session *session, struct error *err)
{
    dealer_free(session->dealer);
    engine_free(session->engine);
    free(session->policies);
    opened_model_close(&session->opened);
    free(session->hosts);
    comm_free(&session->group);
    comm_free(&session->node);
    log_close();
    if (session->world.mpi == MPI_COMM_NULL)
        return;
    if (session->world.rank != 0)
        err->text[0] = '\0';
    comm_finish(&session->world);
}
