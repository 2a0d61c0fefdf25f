/* Jobs: what rank 0 asks of a ring group, and what it gets back. A group knows nothing of documents: token ids go
 * in, token ids or log-probabilities come out.
 *
 * A job and a result own their arrays; job_free and job_result_free give them back and leave an empty struct.
 */
#ifndef LONGHAUL_PIPELINE_JOB_H
#define LONGHAUL_PIPELINE_JOB_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "model/sample.h"
#include "pipeline/receipt.h"

enum job_kind {
    JOB_STOP,     /* no more work: the group ends         */
    JOB_GENERATE, /* prefill the tokens, then write on    */
    JOB_SCORE,    /* log-probabilities of the tokens      */
    JOB_PROBE     /* nothing but a receipt                */
};

struct job {
    int64_t id;
    enum job_kind kind;
    int64_t n_tokens;
    int32_t *tokens;
    int64_t max_new; /* JOB_GENERATE: at most so many */
    int32_t setting; /* of the engine: how it is read */
    int32_t probes;  /* SCORE, PROBE: read under `reference`, too, and compared at so many positions; 0: not */
    int32_t reference;
    int64_t probes_from; /* at positions behind this one */
    struct sample_options sampling;
    uint64_t stream; /* of its draws: model/sample.h */
};

enum job_finish { FINISH_END /* the model ended its turn */, FINISH_LENGTH /* max_new reached */ };

/* "stop", "length". */
const char *job_finish_name(enum job_finish finish);

struct job_result {
    int64_t id;
    enum job_kind kind;   /* of the job, and so of what came of it; arrays that are there may have no elements */
    struct error failure; /* code ERROR_NONE: all is well */
    enum job_finish finish;
    int64_t count;            /* GENERATE: tokens written, without the end token. SCORE: n_tokens - 1 predictions */
    int32_t *tokens;          /* GENERATE: [count] */
    float *logprob;           /* SCORE: [count], of token i + 1 given those before it */
    int32_t *top1;            /* SCORE: [count] */
    float *reference_logprob; /* SCORE with probes: [count], under the reference */
    struct receipt receipt;   /* with probes: the losses of the probes alone */
    int64_t forgotten;        /* of the job's tokens, once read, those that no layer could reach any more */
    double prefill_seconds, decode_seconds;
};

/* How far a group is with its job. */
struct job_progress {
    int64_t id;
    int64_t prefilled, generated;
};

void job_free(struct job *job);
void job_result_free(struct job_result *result);

/* A message holds a job or a result whole: a header and its arrays. NULL when out of memory; to be freed. */
void *job_to_message(const struct job *job, size_t *bytes);
void *job_result_to_message(const struct job_result *result, size_t *bytes);
/* Take a message apart again; ERROR_INTERNAL when the sizes do not fit. */
int job_from_message(const void *message, size_t bytes, struct job *out, struct error *err);
int job_result_from_message(const void *message, size_t bytes, struct job_result *out, struct error *err);

#endif
