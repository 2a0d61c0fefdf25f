/* Chunks: a document's tokens cut into overlapping pieces that each fit one sequence of the model.
 *
 * chunk_cut, then chunk_list_free. A document that fits is one chunk. Otherwise there are as few chunks as can be
 * and they are of about equal length, the last one too. Near where it would fall (a tenth of the limit to either
 * side, 64 tokens at least where the chunk is that large) a cut is put at the best place: behind a blank line,
 * else behind a line, else behind a sentence, else between any two characters. A chunk begins at such a place as
 * well, so that the overlap is the tokens asked for or somewhat more, and never less.
 */
#ifndef LONGHAUL_PIPELINE_CHUNK_H
#define LONGHAUL_PIPELINE_CHUNK_H

#include <stdint.h>

#include "base/error.h"

/* A tokenised text; all borrowed. */
struct chunk_text {
    const char *bytes; /* UTF-8 [ends[n_tokens - 1]] */
    int64_t n_tokens;
    const int64_t *ends; /* [n_tokens] the byte behind each token, never falling */
};

struct chunk_limits {
    int64_t max_tokens; /* of a chunk, its overlap included; at least 1 */
    int64_t overlap;    /* tokens shared with the chunk before; less than half of max_tokens */
};

struct chunk {
    int64_t first_token, end_token;
    int64_t first_byte, end_byte; /* of the text */
    int64_t overlap;              /* tokens shared with the chunk before, 0 for the first */
};

struct chunk_list {
    int64_t count;
    struct chunk *items; /* covering all tokens, first and end both rising */
};

/* *out = the chunks; none for no tokens. ERROR_USAGE for limits outside of the above, ERROR_RESOURCE. */
int chunk_cut(const struct chunk_text *text, const struct chunk_limits *limits, struct chunk_list *out,
              struct error *err);

void chunk_list_free(struct chunk_list *list);

#endif
