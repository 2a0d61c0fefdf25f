/* Choosing the next token from a model's logits.
 *
 * sample_defaults() is greedy: always the most likely token, the lowest id among equals. With a temperature above
 * 0 the choice is drawn. The draw depends on nothing but the seed, the stream and the number of tokens
 * written so far, so that an answer taken up again goes on as it would have.
 *
 * The order: repetition penalty, temperature, top-k, top-p, min-p, each over what the one before left.
 */
#ifndef LONGHAUL_MODEL_SAMPLE_H
#define LONGHAUL_MODEL_SAMPLE_H

#include <stdint.h>

#include "base/error.h"

/* Plain data: may be copied between processes. No number is negative; the command line bounds them
 * (pipeline/options.c). */
struct sample_options {
    float temperature;     /* 0: greedy */
    int64_t top_k;         /* only the k most likely; 0: all */
    float top_p;           /* only the most likely that together reach this probability, one at least; 1: all */
    float min_p;           /* only those at least this likely against the most likely; 0: all */
    float repeat_penalty;  /* > 1 makes what was written less likely; 1: off; above 0 */
    int64_t repeat_window; /* the penalty looks at so many of the last tokens written */
    uint64_t seed;
};
struct sample_options sample_defaults(void);

/* What has been written of this answer. */
struct sample_past {
    const int32_t *tokens; /* [count] */
    int64_t count;
    uint64_t stream; /* tells answers with one seed apart */
};

/* The next token, or -1: ERROR_INPUT when a logit is NaN or +inf, or all are -inf; ERROR_RESOURCE.
 * logits [n_vocab] are changed when there is a penalty. */
int32_t sample_token(const struct sample_options *options, float *logits, int64_t n_vocab,
                     const struct sample_past *past, struct error *err);

/* The draw: a number in [0, 1) for each (seed, stream, step). */
double sample_draw(uint64_t seed, uint64_t stream, uint64_t step);

#endif
