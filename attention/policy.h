/* Policies: per layer, what a token may attend to and what is kept of the past.
 *
 * A layer's keys lie in up to three banks, and a query's softmax runs over all of them:
 *   sinks  the first tokens of the chunk;
 *   slots  what is kept of the tokens that have left the near part, at most so many, a list for each kv head;
 *   near   the recent tokens, raw and complete.
 * A policy says where the near part begins for a query (near), how many slots there are and what fills them (keep,
 * or a choice made anew for each group of queries), and which positions slots have. attention/bounded.h does the
 * rest, alike for all of them. `full` keeps everything and goes round the ring instead (attention/ring.h), and so
 * does `window` on a GPU.
 *
 * One file per policy, policy_NAME.c; its parameters, their units and its source stand there, and policy_parse()
 * reads "NAME[:parameter=value,...]". A policy_spec is plain data: it can be sent to other ranks as it is.
 */
#ifndef LONGHAUL_ATTENTION_POLICY_H
#define LONGHAUL_ATTENTION_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

enum policy_kind {
    POLICY_FULL,
    POLICY_WINDOW,
    POLICY_SINKS,
    POLICY_RETRIEVAL,
    POLICY_MEMORY,
    POLICY_COMPRESSIVE,
    POLICY_H2O,
    POLICY_SNAPKV,
    POLICY_INFLLM,
    POLICY_LANDMARK,
    POLICY_KINDS
};

/* How several tokens become one slot. */
enum pooling { POOL_MEAN, POOL_MAX, POOL_USED, POOL_CONVOLUTION };

/* One layer's policy and its parameters; those that a policy does not name are 0. */
struct policy_spec {
    enum policy_kind kind;
    int64_t window;  /* tokens of the near part, as the policy's near_rule counts them */
    int64_t sinks;   /* first tokens of the chunk that stay visible */
    int64_t slots;   /* most slots of a kv head */
    int64_t nearest; /* slots that a query attends to: the nearest of all; 0: every one */
    int64_t top;     /* blocks that a group of queries chooses */
    int64_t rate;    /* tokens that become one slot; 0: slots are single tokens */
    int64_t pool;    /* enum pooling */
    int64_t weigh;   /* 1: a slot counts in the softmax for the `rate` tokens that it stands for */
    int64_t token;   /* id of the landmark token */
    int64_t far;     /* tokens that the far memory holds, all ranks together; 0: all */
};

/* Whether both ask for the same. A struct is not to be compared by its bytes: it has some between its fields. */
bool policy_same(const struct policy_spec *a, const struct policy_spec *b);

/* Where the near part of the query at position p begins, in a segment that begins at f; never below 0. */
enum near_rule {
    NEAR_ALL,     /* 0 */
    NEAR_SLIDING, /* p - window + 1: the window counts the query itself */
    NEAR_SEGMENT, /* f - window: what was there before the segment, and the segment up to the query */
    NEAR_GROUP,   /* g - window, g = p rounded down to POLICY_GROUP: the same for a group of queries */
};

/* Queries that share one choice of slots; a group lies on one rank. */
enum { POLICY_GROUP = 128 };

/* What positions sinks and slots have for a query; near keys have their own. */
enum slot_positions {
    SLOTS_INDEXED,  /* 0, 1, 2 ... over the visible sinks and slots, the near part following on: the query's
                       position is its index inside the cache (Xiao et al. 2023) */
    SLOTS_AT_ONE,   /* all at 0, the query at `window`: one distance for all of them (Xiao et al. 2024) */
    SLOTS_AT_FIRST, /* all where the near part begins (Tworkowski et al. 2023) */
};

/* Where a layer has the tokens before its near part, beside the sinks. */
enum past {
    PAST_SLOTS,     /* in slots that keep() fills; nowhere, where there is none */
    PAST_FAR,       /* in a far memory (attention/far.h), out of which each group of queries chooses slots */
    PAST_BLOCKS,    /* the same in raw blocks (attention/blocks.h) that leave at ends of segments; tokens between
                       the window and the first of the near part are seen at the slots' position */
    PAST_LANDMARKS, /* in the near part: every `rate`-th token is a landmark (attention/landmark.h) */
};

/* A parameter of a policy, and where it goes in a policy_spec. */
struct policy_parameter {
    const char *name; /* NULL ends a table */
    size_t where;     /* of an int64_t */
    int64_t fallback, least, most;
    const char *help;
    const char *words; /* of a choice, "mean|max": their numbers are 0, 1 ...; NULL: a number */
};

struct keep;

struct policy {
    const char *name, *purpose;
    const struct policy_parameter *parameters;
    size_t budget; /* offset of the field of a policy_spec that bounds its memory, in tokens; 0: none does */
    enum near_rule near;
    enum slot_positions positions;
    enum past past;
    int64_t observe;  /* of how many last queries of a segment keep() is told the attention that keys get, or blocks
                         find their representatives by it; see policy_observe */
    bool accumulates; /* ... added to what earlier segments gave */
    /* What cannot work together: ERROR_USAGE. May be NULL. */
    int (*check)(const struct policy_spec *spec, struct error *err);
    /* After a segment, where slots are filled from what leaves: see attention/keep.h. May be NULL. */
    int (*keep)(struct keep *keep, struct error *err);
};

/* The table of all policies. */
const struct policy *policy_of(enum policy_kind kind);

/* Whether a ring of GPUs can attend to such a layer, which then needs no bounded memory: full, and windows. */
bool policy_goes_round(enum policy_kind kind);

enum past policy_past(const struct policy_spec *spec);

/* Tokens of the blocks that groups of queries choose; 0: they choose none. */
int64_t policy_block_tokens(const struct policy_spec *spec);

/* Read "NAME[:parameter=value,...]"; ERROR_USAGE says what is wrong and what there is. */
int policy_parse(const char *text, struct policy_spec *out, struct error *err);

/* The same the other way, with all parameters: "sinks:window=1024,sinks=4". */
void policy_describe(const struct policy_spec *spec, char *out, size_t size);

/* The first position of the near part for the query at `position` in a segment that begins at `segment_first`. */
int64_t policy_near_first(const struct policy_spec *spec, int64_t position, int64_t segment_first);

/* Most sinks and slots that a query sees in a kv head. */
int64_t policy_kept(const struct policy_spec *spec);

/* Of how many last queries of a segment the attention that keys get is told to keep(); 0: of none. */
int64_t policy_observe(const struct policy_spec *spec);

/* The first position that the query at `position` sees as full attention would, with all that follow it; what is
 * kept of the tokens before it, but for sinks, is fewer, or less exact, or elsewhere. */
int64_t policy_exact_from(const struct policy_spec *spec, int64_t position, int64_t segment_first);

/* No near part begins further before its query, or before its segment, than this. Where blocks are chosen, it keeps
 * the sinks, too, until there is something between them and the window. */
int64_t policy_near_reach(const struct policy_spec *spec);

/* In the segment [first, end), or where tokens from `first` to before `end` came one by one, no query stands
 * further in positions from a key that it sees than this, itself counted: what a model has to know. At most `end`.
 */
int64_t policy_reach(const struct policy_spec *spec, int64_t first, int64_t end);

/* In a text of n tokens, landmarks counted, a policy asks a rope for the angles of positions below this. */
int64_t policy_positions(const struct policy_spec *spec, int64_t n);

extern const struct policy policy_full, policy_window, policy_sinks, policy_retrieval, policy_memory,
    policy_compressive, policy_h2o, policy_snapkv, policy_infllm, policy_landmark;

#endif
