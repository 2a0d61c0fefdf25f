/* The tasks of needle: what is hidden in how long a text, what is asked about it, and how an answer is scored.
 *
 *   niah             one sentence about San Francisco in a text
 *   passkey          a number in noise
 *   niah_single_1    the number of a key in noise
 *   niah_single_2    ... in a text
 *   niah_single_3    ... in a text, a UUID instead of the number
 *   niah_multikey_1  one of four keys in a text
 *   niah_multikey_2  one key among as many others as fit: keys are words, values numbers
 *   niah_multikey_3  ... keys and values are UUIDs
 *   niah_multivalue  all four values of a key in a text
 *   niah_multiquery  the values of four keys in a text
 *   vt               the five variables that a chain of assignments in noise gives one value
 *   cwe              the ten words that are most frequent in a list
 *   fwe              the three words that are most frequent where frequencies follow a zeta distribution
 *
 * niah is that of G. Kamradt, LLMTest_NeedleInAHaystack (2023); passkey that of Mohtashami and Jaggi, Landmark
 * Attention (2023); from niah_single_1 on they are those of Hsieh et al., RULER (2024), whose wording and
 * parameters are kept.
 *
 * The depth of a needle is where it stands: at 0 before, at 100 behind all of the haystack, else before the
 * sentence (or line) at that share of them. Tasks whose facts are all over the text have no depth. Noise is the
 * sentence that RULER repeats; a text is the user's, from a sentence on that each trial draws.
 *
 * The prompt is one user turn in the model's chat format; where the task has one, the beginning of the answer
 * stands behind the header of the answer's turn. Where this leaves the published form: a haystack holds no second
 * needle with a key that is asked for; passkeys have five digits, because shorter ones are found in longer ones;
 * the worked example of cwe is in the user's turn as that of vt is; words are from our own list. Where RULER's
 * words run out cwe takes others for the whole list; ours are then pairs, "quiet-harbor".
 */
#ifndef LONGHAUL_PIPELINE_NEEDLE_TASKS_H
#define LONGHAUL_PIPELINE_NEEDLE_TASKS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "pipeline/haystack.h"

enum needle_task {
    NEEDLE_NIAH,
    NEEDLE_PASSKEY,
    NEEDLE_NIAH_SINGLE_1,
    NEEDLE_NIAH_SINGLE_2,
    NEEDLE_NIAH_SINGLE_3,
    NEEDLE_NIAH_MULTIKEY_1,
    NEEDLE_NIAH_MULTIKEY_2,
    NEEDLE_NIAH_MULTIKEY_3,
    NEEDLE_NIAH_MULTIVALUE,
    NEEDLE_NIAH_MULTIQUERY,
    NEEDLE_VT,
    NEEDLE_CWE,
    NEEDLE_FWE,
    NEEDLE_TASKS
};

const char *needle_task_name(enum needle_task task);
/* The task of that name, or -1. */
int needle_task_find(const char *name, size_t length);
bool needle_task_has_depth(enum needle_task task);
/* Tokens that its answer may have, as published. */
int64_t needle_task_max_new(enum needle_task task);

/* What trials are made of. */
struct needle_material;
/* text: the user's, borrowed; NULL: there is none. The tokenizer is borrowed, too. */
struct needle_material *needle_material_create(const struct tokenizer *tokenizer, const struct haystack *text,
                                               uint64_t seed, struct error *err);
void needle_material_free(struct needle_material *material);

struct needle_cell {
    enum needle_task task;
    int64_t length; /* tokens of prompt and answer together, at most */
    int64_t depth;  /* per cent; of no matter where the task has none */
    int64_t trial;
};

enum { NEEDLE_EXPECTED = 10, NEEDLE_EXPECTED_BYTES = 64, NEEDLE_LEAD_BYTES = 384 };

struct needle_trial {
    char *text;                   /* of the user's turn */
    char lead[NEEDLE_LEAD_BYTES]; /* the beginning of the answer, or "" */
    int n_expected;
    char expected[NEEDLE_EXPECTED][NEEDLE_EXPECTED_BYTES];
    int64_t n_tokens; /* of the whole prompt */
    int32_t *tokens;
};

/* The same for the same cell, material, seed and tokenizer. The prompt is the longest, in words, lines or items of
 * the haystack, with which it and the task's longest answer fit cell->length. ERROR_USAGE: not even the shortest
 * does, or there are not words enough; also when the task needs a text and there is none. */
int needle_trial_make(const struct needle_material *material, const struct needle_cell *cell,
                      struct needle_trial *out, struct error *err);
/* The errors of needle_trial_make without the search for the longest prompt; *least = the tokens that the shortest
 * takes, answer included. */
int needle_trial_check(const struct needle_material *material, const struct needle_cell *cell, int64_t *least,
                       struct error *err);
void needle_trial_free(struct needle_trial *trial);

/* The share of what is expected that is somewhere in the answer, whatever the case of ASCII letters; 0 to 1. */
double needle_score(const struct needle_trial *trial, const char *answer);

#endif
