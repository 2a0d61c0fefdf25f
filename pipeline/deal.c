#include "pipeline/deal.h"

#include <limits.h>
#include <stdlib.h>
#include <unistd.h>

/* From leaders: ASK (empty), ANSWER (a job_result), PROGRESS (a job_progress). To leaders: JOB. */
enum tag { TAG_ASK = 1, TAG_ANSWER, TAG_PROGRESS, TAG_JOB };

/* How long an idle leader sleeps between two looks: it must not burn a core that another rank computes on. */
enum { IDLE_MICROSECONDS = 500 };

enum leader_state { LEADER_STARTING, LEADER_IDLE, LEADER_BUSY };

struct dealer {
    const struct comm *world;
    int ring, groups;
    struct deal_source source;
    enum leader_state *leaders; /* [groups]; that of group 0 stays unused */
};

struct dealer *dealer_create(const struct comm *world, int ring, const struct deal_source *source,
                             struct error *err)
{
    struct dealer *dealer = calloc(1, sizeof *dealer);
    int groups = world->size / ring;
    enum leader_state *leaders = calloc((size_t)groups, sizeof *leaders);
    if (!dealer || !leaders) {
        free(dealer);
        free(leaders);
        error_set(err, ERROR_RESOURCE, "no memory for %d ring groups", groups);
        return NULL;
    }
    *dealer = (struct dealer){world, ring, groups, *source, leaders};
    return dealer;
}

void dealer_free(struct dealer *dealer)
{
    if (!dealer)
        return;
    free(dealer->leaders);
    free(dealer);
}

static int send_message(const struct comm *world, int to, enum tag tag, const void *data, size_t bytes,
                        struct error *err)
{
    if (bytes > INT_MAX)
        return error_set(err, ERROR_RESOURCE, "a job of %zu bytes is too large for one message", bytes);
    return comm_check(MPI_Send(data, (int)bytes, MPI_BYTE, to, tag, world->mpi), "sending between ranks", err);
}

/* Receive the message that a probe has found, into a buffer to be freed. */
static void *receive_message(const struct comm *world, const MPI_Status *found, size_t *bytes, struct error *err)
{
    int count;
    if (comm_check(MPI_Get_count(found, MPI_BYTE, &count), "receiving between ranks", err) != 0)
        return NULL;
    void *message = malloc(count ? (size_t)count : 1);
    if (!message) {
        error_set(err, ERROR_RESOURCE, "no memory for a message of %d bytes", count);
        return NULL;
    }
    if (comm_check(
            MPI_Recv(message, count, MPI_BYTE, found->MPI_SOURCE, found->MPI_TAG, world->mpi, MPI_STATUS_IGNORE),
            "receiving between ranks", err) != 0) {
        free(message);
        return NULL;
    }
    *bytes = (size_t)count;
    return message;
}

static int take_answer(struct dealer *dealer, const void *message, size_t bytes, struct error *err)
{
    struct job_result result;
    if (job_result_from_message(message, bytes, &result, err) != 0)
        return -1;
    int status = dealer->source.give(dealer->source.context, &result, err);
    job_result_free(&result);
    return status;
}

static int serve(struct dealer *dealer, const MPI_Status *found, struct error *err)
{
    size_t bytes;
    void *message = receive_message(dealer->world, found, &bytes, err);
    if (!message)
        return -1;
    enum leader_state *leader = &dealer->leaders[found->MPI_SOURCE / dealer->ring];
    int status = 0;
    switch ((enum tag)found->MPI_TAG) {
    case TAG_ASK:
        *leader = LEADER_IDLE;
        break;
    case TAG_ANSWER:
        status = take_answer(dealer, message, bytes, err);
        break;
    case TAG_PROGRESS:
        dealer->source.progress(dealer->source.context, message);
        break;
    case TAG_JOB:
        status = error_set(err, ERROR_INTERNAL, "rank %d sent a job to rank 0", found->MPI_SOURCE);
        break;
    }
    free(message);
    return status;
}

static int send_job(const struct comm *world, int leader, const struct job *job, struct error *err)
{
    size_t bytes;
    void *message = job_to_message(job, &bytes);
    if (!message)
        return error_set(err, ERROR_RESOURCE, "no memory to send a job of %lld tokens", (long long)job->n_tokens);
    int status = send_message(world, leader, TAG_JOB, message, bytes, err);
    free(message);
    return status;
}

static int feed_idle(struct dealer *dealer, struct error *err)
{
    for (int group = 1; group < dealer->groups; group++) {
        struct job job;
        if (dealer->leaders[group] != LEADER_IDLE)
            continue;
        if (!dealer->source.take(dealer->source.context, &job))
            return 0;
        int status = send_job(dealer->world, group * dealer->ring, &job, err);
        job_free(&job);
        if (status != 0)
            return -1;
        dealer->leaders[group] = LEADER_BUSY;
    }
    return 0;
}

int dealer_poll(struct dealer *dealer, struct error *err)
{
    if (dealer->groups == 1)
        return 0;
    for (;;) {
        int there;
        MPI_Status found;
        if (comm_check(MPI_Iprobe(MPI_ANY_SOURCE, MPI_ANY_TAG, dealer->world->mpi, &there, &found),
                       "looking for messages", err) != 0)
            return -1;
        if (!there)
            return feed_idle(dealer, err);
        if (serve(dealer, &found, err) != 0)
            return -1;
    }
}

/* A leader that is still starting has its question on the way. */
static bool all_idle(const struct dealer *dealer)
{
    for (int group = 1; group < dealer->groups; group++)
        if (dealer->leaders[group] != LEADER_IDLE)
            return false;
    return true;
}

int dealer_stop(struct dealer *dealer, struct error *err)
{
    const struct job stop = {.kind = JOB_STOP};
    while (!all_idle(dealer)) {
        MPI_Status found;
        if (comm_check(MPI_Probe(MPI_ANY_SOURCE, MPI_ANY_TAG, dealer->world->mpi, &found), "ending the run", err) !=
                0 ||
            serve(dealer, &found, err) != 0)
            return -1;
    }
    for (int group = 1; group < dealer->groups; group++)
        if (send_job(dealer->world, group * dealer->ring, &stop, err) != 0)
            return -1;
    return 0;
}

int deal_ask(const struct comm *world, struct job *out, struct error *err)
{
    if (send_message(world, 0, TAG_ASK, NULL, 0, err) != 0)
        return -1;
    MPI_Status found;
    for (int there = 0; !there;) {
        if (comm_check(MPI_Iprobe(0, TAG_JOB, world->mpi, &there, &found), "waiting for a job", err) != 0)
            return -1;
        if (!there)
            usleep(IDLE_MICROSECONDS);
    }
    size_t bytes;
    void *message = receive_message(world, &found, &bytes, err);
    if (!message)
        return -1;
    int status = job_from_message(message, bytes, out, err);
    free(message);
    return status;
}

int deal_answer(const struct comm *world, const struct job_result *result, struct error *err)
{
    size_t bytes;
    void *message = job_result_to_message(result, &bytes);
    if (!message)
        return error_set(err, ERROR_RESOURCE, "no memory to send a result of %lld tokens",
                         (long long)result->count);
    int status = send_message(world, 0, TAG_ANSWER, message, bytes, err);
    free(message);
    return status;
}

int deal_report(const struct comm *world, const struct job_progress *progress, struct error *err)
{
    return send_message(world, 0, TAG_PROGRESS, progress, sizeof *progress, err);
}
