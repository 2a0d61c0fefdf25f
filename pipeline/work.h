/* Work: one document on its way through a run, as rank 0 sees it: its tokens, its chunks, and the generations
 * (nodes) that a strategy makes of them.
 *
 * work_init, work_plan (chooses strategy and chunks; may fail the document); then, until work_over: work_take makes
 * a job of a node that work_ready names, and what came back of it goes to work_give. work_clear at the end.
 * A node's number is its index; nodes are only ever added.
 *
 *   whole:       final
 *   map-reduce:  map map map map -> reduce reduce -> final      (summaries of summaries until they fit)
 *   refine:      refine -> refine -> ... -> final               (each sees the answer so far and the next chunk)
 *   score:       one node a chunk, no texts
 */
#ifndef LONGHAUL_PIPELINE_WORK_H
#define LONGHAUL_PIPELINE_WORK_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "io/results.h"
#include "pipeline/chunk.h"
#include "pipeline/job.h"
#include "pipeline/options.h"
#include "pipeline/prompt.h"
#include "pipeline/task.h"

enum node_state { NODE_WAITING, NODE_READY, NODE_RUNNING, NODE_DONE };

/* In place of a node's number: the job that measures the document's receipt, which is no generation. */
enum { WORK_RECEIPT = INT32_MAX };

struct node {
    enum node_state state;
    enum result_node_kind kind;
    enum prompt_role role;
    int64_t parent;                 /* the node that takes this one's answer up, or -1 */
    int64_t level;                  /* 0 nearest to the source */
    int64_t chunk;                  /* or -1 */
    int64_t first_child, end_child; /* REDUCE: the nodes whose answers are the material */
    int64_t prompt_tokens;
    int64_t n_tokens;
    int32_t *tokens; /* the answer, owned */
    enum job_finish finish;
};

/* How much fits, in tokens; the same for all documents of a run. */
struct work_limits {
    enum strategy strategy;
    int64_t context;    /* effective context */
    int64_t chunk;      /* --chunk, 0: as large as fits */
    int64_t overlap;    /* a score without BOS has 1 at least */
    bool overlap_asked; /* by the user: it is kept or refused, never made smaller */
    int64_t max_new;
    bool truncate;
    bool compares;     /* score: under a reference, too */
    bool extends;      /* a document beyond the context can be read as a whole all the same, under setting 1 */
    bool lossy;        /* setting 0 sees or keeps less than the model's own way; setting 1 always does */
    int64_t receipt;   /* first tokens of a document that its receipt is measured on, where its setting is lossy */
    int64_t intact[2]; /* under a setting so many first tokens of a sequence lose nothing: nothing to be measured */
    int64_t bos;       /* tokens in front of a document */
    int64_t room[ROLE_COUNT]; /* material that fits beside the prompt of a role and max_new; score: ROLE_WHOLE */
};

struct work {
    int64_t n_tokens; /* of the document */
    int32_t *tokens;  /* [n_tokens], owned */
    int64_t dropped;  /* tokens at its end that --truncate left out */
    enum strategy strategy;
    int32_t setting; /* of the engine: how its jobs are read */
    struct chunk_list chunks;
    int64_t n_nodes, capacity;
    struct node *nodes;
    int64_t open; /* nodes not done */
    bool failed;
    struct error failure; /* why it cannot be done */
    int64_t failed_node;  /* whose failure that is */
    /* score: the tokens that have a prediction; the arrays go by the tokens of the document */
    int64_t score_first, score_end;
    float *logprob;           /* [score_end] */
    int32_t *top1;            /* [score_end] */
    float *reference_logprob; /* [score_end] where it is compared; else NULL */
    struct receipt *receipts; /* [chunks.count] the same: of each chunk */
    int64_t receipt_tokens;   /* generating: what the receipt is measured on; 0: nothing is */
    enum node_state receipt_state;
    struct receipt receipt; /* of the jobs that were compared: losses of the probes. Where nothing has left the
                             * memory by the end of what could be read under the reference it has no probes, and
                             * says so by its memory.tokens alone */
    double prefill_seconds, decode_seconds;
    int64_t prefilled, generated;
    int64_t forgotten; /* of what was read of its chunks, out of every layer's reach once a chunk had been read */
};

/* Takes the tokens over. */
void work_init(struct work *work, int32_t *tokens, int64_t n_tokens);
void work_clear(struct work *work);

/* Bytes of its tokens and scores. */
size_t work_bytes(const struct work *work);

/* Choose the strategy, cut the chunks, make the first nodes. A document that cannot be done under these limits is
 * marked failed with the reason; that is not an error. `text`, with the tokens' end offsets, is borrowed for the
 * call. -1: out of memory. */
int work_plan(struct work *work, const struct task *task, const struct work_limits *limits,
              const struct chunk_text *text, struct error *err);

/* Whether the document's receipt is to be measured, and on how much: part of work_plan, and to be called again
 * where the limits of receipts have changed before anything runs. */
void work_plan_receipt(struct work *work, const struct work_limits *limits);

/* The next node that is ready, WORK_RECEIPT when no other is, or -1. */
int64_t work_ready(const struct work *work);

/* Nothing of it runs, and all of it is done or it has failed. */
bool work_over(const struct work *work);

/* Tokens that the node's job will hold, more or less: what dealing goes by. */
int64_t work_cost(const struct work *work, const struct work_limits *limits, int64_t node);

/* Make the node's job. It is running from then on. */
int work_take(struct work *work, int64_t node, const struct prompter *prompter, struct job *out, struct error *err);

/* The most tokens of answers that are put together when a document has so many chunks. */
int64_t work_reduction_tokens(int64_t chunks, const struct work_limits *limits);

/* The node's job came back; follow-up nodes may become ready. Takes arrays it keeps out of *result. */
int work_give(struct work *work, int64_t node, const struct work_limits *limits, struct job_result *result,
              struct error *err);

/* The name that is recorded: "whole", "map-reduce", "refine". */
const char *strategy_name(enum strategy strategy);

#endif
