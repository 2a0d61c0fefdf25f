/* The engine of a ring group: a model made ready, and jobs run on it one after another.
 *
 * engine_create is collective over the world: packed weights are shared by the ranks of a node, of whatever group
 * they are, and no rank may wait for one that has failed. engine_run is collective over the group: every rank of it
 * passes the same job and gets the same result.
 */
#ifndef LONGHAUL_PIPELINE_ENGINE_H
#define LONGHAUL_PIPELINE_ENGINE_H

#include "base/comm.h"
#include "base/error.h"
#include "base/num.h"
#include "model/forward.h"
#include "model/model.h"
#include "model/tokenizer.h"
#include "pipeline/job.h"

struct engine;

/* Called from the thread that runs the engine. poll: often, also in the midst of a layer. progress: after each
 * segment and each few generated tokens. A failure of either ends the job with that error. */
struct engine_hooks {
    int (*poll)(void *context, struct error *err);
    int (*progress)(void *context, const struct job_progress *progress, struct error *err);
    void *context;
};

/* One way in which jobs are read; a job names its own. All of an engine's settings share the packed weights, and
 * each has a memory. */
enum { ENGINE_SETTINGS = 3 };
struct engine_setting {
    const struct policy_spec *policies;      /* [layers], borrowed; or NULL: all of them full */
    const struct position_method *positions; /* borrowed; or NULL: those of the model */
    int64_t max_tokens;                      /* of any job, what it generates counted */
};

struct engine_options {
    struct model *model; /* borrowed, as all pointers; engine_create packs it */
    const struct tokenizer *tokenizer;
    const struct comm *world, *group, *node;
    const struct device *device;
    enum dtype dtype; /* bf16 on a GPU */
    bool scores;      /* JOB_SCORE will be asked */
    bool compares;    /* ... under two settings */
    int threads;
    bool streamed;     /* on a GPU: the matrices of two layers at a time */
    bool keys_on_host; /* on a GPU: keys and values of full layers lie beside it */
    int64_t segment;
    int64_t max_new; /* most tokens that a job generates */
    struct engine_setting settings[ENGINE_SETTINGS];
    int n_settings;
    struct engine_hooks hooks;
};

/* Fails on all ranks where it fails on one, with the error of the lowest that failed. */
struct engine *engine_create(const struct engine_options *options, struct error *err);
void engine_free(struct engine *engine);

/* The kernel that was chosen, for the log. */
const char *engine_kernel_name(const struct engine *engine);
/* How keys go round its ring; NULL where they do not. */
const char *engine_transport_name(const struct engine *engine);
/* Of all its settings together. */
struct ring_stats engine_ring_stats(const struct engine *engine);

/* Run one job. Fails only when the run cannot go on; what is wrong with this job alone goes to result->failure. */
int engine_run(struct engine *engine, const struct job *job, struct job_result *result, struct error *err);

/* What a rank needs, in bytes, before anything is allocated; `model` need not be packed. */
struct engine_memory {
    size_t weights; /* packed, per node */
    size_t forward; /* per rank: keys, values, activations, ring buffers, a job and its result */
    size_t device;  /* per rank, on a GPU: weights and all that is computed there */
    size_t device_weights, device_keys; /* of these: weights; keys and values of the past */
    size_t token_keys;                  /* keys and values of a token in full layers, of the setting with most */
};
int engine_memory(const struct engine_options *options, int ring, struct engine_memory *out, struct error *err);

#endif
