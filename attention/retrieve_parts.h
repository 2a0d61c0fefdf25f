/* What the files of retrieval share. Private to attention/retrieve*.c.
 *
 * retrieve.c        making it, the queries of all ranks, and the order of the steps
 * retrieve_glance.c a first look at very many blocks
 * retrieve_board.c  the scores of one kv head: from products to weights
 * retrieve_best.c   the best of all ranks
 */
#ifndef LONGHAUL_ATTENTION_RETRIEVE_PARTS_H
#define LONGHAUL_ATTENTION_RETRIEVE_PARTS_H

#include "attention/far_score.h"
#include "attention/retrieve.h"

/* A block and what its queries give it. */
struct retrieve_entry {
    double weight;
    int64_t block;
};

/* All memory is one block; here is where its parts begin. */
struct retrieve_plan {
    size_t packed;  /* [groups] x packed_bytes of queries: lanes [kv_heads][tiles], scales
                       [kv_heads][tiles][FAR_LANES] */
    size_t columns; /* [groups][max_columns] int64: blocks of this rank that are scored */
    size_t scores;  /* [groups] x board floats: [tiles][columns][FAR_LANES] */
    size_t most;    /* [groups][tiles][FAR_LANES] f32 */
    size_t sums;    /* the same in f64 */
    size_t factors; /* 1 / sums in f32, 0 for rows that there are not */
    size_t weights; /* [groups][max_columns] f64 */
    size_t entries; /* [threads][max_columns] */
    size_t best;    /* [ranks][groups][candidates] entries; merged in the places of rank 0 */
    size_t merged;  /* [ranks][candidates] entries */
    size_t keys;    /* [threads][RETRIEVE_KEYS][dim] uint8 */
    size_t packed_bytes, total;
    int64_t board, max_columns;
    int tiles; /* of the rows of a group, at most */
};

struct retrieve {
    struct retrieve_options options;
    struct retrieve_plan plan;
    const struct far_scorer *scorer;
    char *memory;
    int heads_per_kv;   /* query heads of a kv head */
    int64_t *n_columns; /* [groups] */
    int64_t *skipped;   /* [groups]: see retrieve_list */
};

/* One choice for one kv head. */
struct retrieve_stage {
    struct retrieve *retrieve;
    const struct retrieve_call *call;
    int kv_head;
    bool coarse;     /* with the first rows of a group only */
    bool aligned;    /* column i is the same block in all groups but for what they skip */
    int64_t columns; /* of all groups together, where they are aligned */
    int64_t keep;
};

/* Rows of a group's queries that take part, and the tiles of lanes that they fill. */
int retrieve_rows(const struct retrieve *retrieve, int64_t count, bool coarse);
int retrieve_tiles(const struct retrieve *retrieve, int64_t count, bool coarse);

/* A lane tile of a group's queries, and its scales. */
int8_t *retrieve_lanes(const struct retrieve *retrieve, int64_t group, int kv_head, int tile);
float *retrieve_scales(const struct retrieve *retrieve, int64_t group, int kv_head, int tile);

/* The blocks of this rank that group g scores. */
int64_t *retrieve_columns(const struct retrieve *retrieve, int64_t group);

/* Fill the columns of every group with the blocks of this rank that the group sees, all of them or those that are
 * multiples of `step`. Groups begin and end at different ones: column i of a group is column i + skipped of all
 * groups together; returned is how many these are. */
int64_t retrieve_list(const struct retrieve_stage *stage, int64_t step);

/* A glance samples one block of so many, a prime, so that ranks have even shares. */
enum { RETRIEVE_GLANCE = 17 };

enum { RETRIEVE_RUN = 16 }; /* columns of a work item */

/* A block's keys, in the n-th place of a thread: of representatives there is a place for each column of an item, of
 * whole blocks for one at least. */
enum { RETRIEVE_KEYS = RETRIEVE_RUN * FAR_REPRESENTATIVES }; /* that a thread can have */
_Static_assert((int)RETRIEVE_KEYS >= (int)FAR_BLOCK, "a thread has room for the keys of a whole block");
struct far_keys8 retrieve_keys(const struct retrieve_stage *stage, int64_t block, int thread, int n);

/* Of a tile of a group's rows, the largest scores and what each row counts. */
float *retrieve_most(const struct retrieve *retrieve, int64_t group, int tile);
float *retrieve_factors(const struct retrieve *retrieve, int64_t group, int tile);

/* Do the items in the pool. */
void retrieve_run(const struct retrieve *retrieve, int64_t items, void (*work)(void *, int64_t, int),
                  void *context);

/* Scores of the listed columns, and of all ranks together the largest and the factors. Collective. */
int retrieve_board_weigh(const struct retrieve_stage *stage, struct error *err);

/* The stage->keep best columns of all ranks for every group, in any order; block -1 ends the list. Entries of group
 * g begin at g * stage->keep of the result, which lives until the next call. retrieve_board_best takes the listed
 * columns by their exact weights; retrieve_glance lists all that there are and takes them by a glance. NULL with an
 * error. Collective. */
const struct retrieve_entry *retrieve_board_best(const struct retrieve_stage *stage, struct error *err);
const struct retrieve_entry *retrieve_glance(struct retrieve_stage *stage, struct error *err);

/* A group's best on this rank by the weights [n_columns] of its columns; then those of all ranks. */
void retrieve_best_put(const struct retrieve_stage *stage, int64_t group, const double *weights, int thread);
const struct retrieve_entry *retrieve_best_merge(const struct retrieve_stage *stage, struct error *err);

#endif
