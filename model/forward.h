/* The forward pass of one rank of a ring group, over one chunk at a time.
 *
 * forward_create once; per chunk: forward_reset, then forward_segment for each segment of the prompt in order,
 * then forward_score for each segment that is scored, or forward_next and any number of forward_step to generate.
 * All ranks of the group make the same calls with the same tokens; all of them get the same results.
 *
 * Prefill works on each rank's zigzag block of the segment, by tiles of rows shared over the threads; matrices
 * are the packed ones, activations are rounded to the model's dtype where they enter a matrix and are fp32
 * elsewhere. Under policy landmark the pass carries landmark tokens between those of the text by itself; all that
 * is said here of tokens is said of the text's. Decode splits the rows of each matrix over the ranks, reads the
 * quantised rows of the file itself, and works in fp32 throughout.
 */
#ifndef LONGHAUL_MODEL_FORWARD_H
#define LONGHAUL_MODEL_FORWARD_H

#include <stdint.h>

#include "attention/policy.h"
#include "attention/ring.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/error.h"
#include "base/pool.h"
#include "model/model.h"

struct forward;

struct forward_options {
    const struct model *model; /* packed; borrowed, as all below */
    const struct comm *group;
    struct pool *pool;
    const struct device *device;
    const struct attn_kernel *kernel;        /* of the device */
    const struct attn_kernel *host_kernel;   /* beside a device that the host cannot reach: of bounded memory */
    const struct policy_spec *policies;      /* [layers], or NULL: all of them full */
    const struct position_method *positions; /* or NULL: those of the model */
    bool scores;                             /* forward_score will be called: the model is packed with its head */
    bool keys_on_host;                       /* those of full layers: a device reads them over its bus */
    int64_t segment;                         /* most tokens of one forward_segment */
    int64_t max_tokens;                      /* most tokens of a chunk, generated ones counted */
    int64_t max_generated;                   /* most forward_steps of a chunk */
    void (*poll)(void *context);             /* called often while computing, may be NULL */
    void *poll_context;
};

/* Bytes that forward_create will allocate on each rank, small change aside: the host's, and those of a device that
 * the host cannot reach. The model need not be packed, and of the group only its size is looked at. */
struct forward_memory {
    size_t host, device;
    size_t device_keys; /* of the device's: keys and values of the past */
    size_t token_keys;  /* of keys and values: of a token in all full layers, wherever they are */
};
int forward_bytes(const struct forward_options *options, struct forward_memory *out, struct error *err);

struct forward *forward_create(const struct forward_options *options, struct error *err);
void forward_free(struct forward *forward);

/* Forget the chunk. */
void forward_reset(struct forward *forward);

/* Tokens in memory so far: the position of the next one. */
int64_t forward_length(const struct forward *forward);

/* Carry the next n <= segment tokens through all layers. ERROR_INPUT for a token id outside the vocabulary. */
int forward_segment(struct forward *forward, const int32_t *tokens, int64_t n, struct error *err);

/* What the model says of the segment just carried: for each of its n tokens the natural log-probability of
 * target[i] as the token after it, and the id it would have chosen. target[i] < 0: logprob[i] means nothing.
 * logprob [n], top1 [n]; complete on every rank. Needs a model packed with its head. */
struct forward_scores {
    const int32_t *target;
    float *logprob;
    int32_t *top1;
};
int forward_score(struct forward *forward, const struct forward_scores *scores, struct error *err);

/* logits [vocab] of the token after token `index` of the segment just carried. */
int forward_logits(struct forward *forward, int64_t index, float *logits, struct error *err);

/* The same after its last token. */
int forward_next(struct forward *forward, float *logits, struct error *err);

/* Take one more token into memory and give the logits of the one after it. */
int forward_step(struct forward *forward, int32_t token, float *logits, struct error *err);

/* Bytes of keys and values that this rank holds now. */
size_t forward_resident(const struct forward *forward);

/* Of the chunk's tokens so far, how many are out of reach of the next one in every layer: the fewest of all layers,
 * 0 where any is full. A token is within reach where a layer may attend to it, raw or in fewer bits, or to a slot
 * that it went into; where heads keep different tokens, those that a head has not kept are out of its reach. What
 * earlier tokens have taken from it may reach on. The same on every rank. */
int64_t forward_forgotten(const struct forward *forward);

/* Times and traffic of the ring since forward_create. */
struct ring_stats forward_ring_stats(const struct forward *forward);

/* How what goes round the ring travels ("nccl"); NULL where nothing does. */
const char *forward_transport_name(const struct forward *forward);

#endif
