/* The far memory of a layer: what has left the near part, in four bits (attention/far_record.h), in blocks of
 * FAR_BLOCK tokens that are shared out evenly over a ring group: block b is held by rank b % ranks.
 *
 * Block b holds the tokens first_token + b * FAR_BLOCK and on. A query sees at most the last `capacity` blocks
 * before its near part: far_first_seen. A segment's own blocks are there before its first queries have chosen;
 * `ahead` more places keep them from pushing out blocks that these queries may still see. What is older leaves.
 *
 * far_create, sized once; per segment far_append, far_fetch for records that others hold, and far_settle when all
 * its queries have what they see; far_reset before the next chunk; far_free.
 */
#ifndef LONGHAUL_ATTENTION_FAR_H
#define LONGHAUL_ATTENTION_FAR_H

#include "attention/far_record.h"
#include "attention/near.h"
#include "base/comm.h"
#include "base/device.h"
#include "base/pool.h"

struct far_shape {
    int kv_heads, dim;
    int64_t first_token;
    int64_t capacity; /* blocks that a query may see, of all ranks together */
    int64_t ahead;    /* most blocks of one far_append that some of its queries do not see yet */
};

struct far {
    struct far_shape shape;
    const struct device *device;
    int rank, ranks;
    int64_t blocks; /* that have come, of all ranks together */
    int64_t oldest; /* the first of them that is still there */
    int64_t held;   /* places of a kv head on a rank */
    char *records;  /* [kv_heads][held] */
};

/* Bytes of the records that a rank has room for; false where they cannot be counted. */
bool far_bytes(const struct far_shape *shape, int ranks, size_t *out);

/* ERROR_RESOURCE. far_free also after a far_create that failed. */
int far_create(struct far *far, const struct far_shape *shape, const struct comm *group,
               const struct device *device, struct error *err);
void far_free(struct far *far);
void far_reset(struct far *far);

/* All whole blocks before position `end`, out of the near part, which has them on every rank. */
void far_append(struct far *far, const struct near *near, int64_t end, struct pool *pool);

/* Forget what no later query can see: all but the last `capacity` blocks. */
void far_settle(struct far *far);

/* The first block that a query sees whose near part begins behind block end - 1. */
int64_t far_first_seen(const struct far *far, int64_t end);

/* Blocks before block `end` that are this rank's, from the text's first on; the i-th of them. */
int64_t far_own(const struct far *far, int64_t end);
int64_t far_own_block(const struct far *far, int64_t i);

/* Bytes of the records that this rank holds. */
size_t far_resident(const struct far *far);

/* The record of a block that this rank holds. */
void *far_record(const struct far *far, int kv_head, int64_t block);

/* A record that a rank wants. */
struct far_want {
    int rank, kv_head;
    int64_t block;
};

/* What all ranks want, [n], the same on each of them, and where this rank's comes to lie in the order of its wants.
 * stage: room for as many records as any rank sends and receives. */
struct far_wants {
    const struct far_want *wants;
    int64_t n;
    void *stage, *records;
};

/* Bring them. Collective; ERROR_CLUSTER, or ERROR_RESOURCE for the counts of the ranks. */
int far_fetch(const struct far *far, const struct comm *group, const struct far_wants *wanted, struct error *err);

#endif
