/* A draft: a prompt being written by a needle task, with the numbers that it draws. Between needle_tasks.c and the
 * files of the tasks.
 *
 * A task writes its prompt once for each size that is tried. Every time the same numbers are drawn, as far as the
 * size allows.
 */
#ifndef LONGHAUL_PIPELINE_NEEDLE_DRAFT_H
#define LONGHAUL_PIPELINE_NEEDLE_DRAFT_H

#include <stdio.h>

#include "pipeline/needle_tasks.h"

struct needle_material {
    const struct tokenizer *tokenizer;
    enum chat_format format;
    const struct haystack *text; /* or NULL */
    struct haystack *noise;
    uint64_t seed;
    int64_t single_tokens; /* of the longest list that cwe can make of single words */
};

struct draft {
    const struct needle_material *material;
    const struct needle_cell *cell;
    int64_t size;    /* words, lines or items of the haystack */
    uint64_t random; /* the state of the numbers that are drawn */
    /* What the task writes: */
    FILE *prompt; /* the user's turn; a failed write need not be checked */
    const char *system;
    char lead[NEEDLE_LEAD_BYTES];
    int n_expected;
    char expected[NEEDLE_EXPECTED][NEEDLE_EXPECTED_BYTES];
};

/* A number in 0 .. n - 1. */
int64_t draft_below(struct draft *draft, int64_t n);
/* out [k] = k different numbers in 0 .. n - 1, rising; k <= n. */
void draft_choose(struct draft *draft, int64_t n, int k, int64_t *out);
/* Items [n] in another order. */
void draft_shuffle(struct draft *draft, int32_t *items, int64_t n);
void draft_expect(struct draft *draft, const char *answer);

/* One family of tasks each; see needle_tasks.h. -1: ERROR_RESOURCE. */
int draft_sandwich(struct draft *draft, struct error *err);
int draft_passkey(struct draft *draft, struct error *err);
int draft_niah(struct draft *draft, struct error *err);
int draft_vt(struct draft *draft, struct error *err);
int draft_cwe(struct draft *draft, struct error *err);
int draft_fwe(struct draft *draft, struct error *err);

/* The most different words that a list of cwe has in a cell of that length. */
int64_t draft_cwe_words(const struct needle_material *material, int64_t length);
/* material->single_tokens, once its tokenizer is there. -1: no memory. */
int64_t draft_cwe_single_tokens(const struct needle_material *material, struct error *err);

/* The sentence that noise is made of, and its lines. */
extern const char needle_noise[];

#endif
