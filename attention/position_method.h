/* Position methods: how far a token turns, and how a model reads further than it was trained to.
 *
 * A head turns its pair i of elements by theta_i a position; without a method theta_i = base^(-2i/dims). A method
 * slows these frequencies down by a factor s, so that s times the trained length of positions turns no further than
 * what the model knows. Fill a struct position_method (position_method_defaults, then the fields by name), check it
 * once with position_method_check; struct rope (position.h) asks for the frequencies.
 *
 * Sources: PI: Chen et al., arXiv 2306.15595. NTK-aware and Dynamic NTK: bloc97 and emozilla, in YaRN's section 3.
 * YaRN: Peng et al., arXiv 2309.00071. Llama 3: Llama 3.1's published code. LongRoPE: Ding et al., arXiv
 * 2402.13753. The forms are those that models are tuned with, as in transformers' modeling_rope_utils: YaRN's ramp
 * is linear in the index of the pair, and Dynamic NTK has a factor of its own.
 */
#ifndef LONGHAUL_ATTENTION_POSITION_METHOD_H
#define LONGHAUL_ATTENTION_POSITION_METHOD_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"

enum position_kind {
    POSITION_NONE,
    POSITION_PI,      /* theta / s */
    POSITION_NTK,     /* base * s^(dims / (dims - 2)): the slowest pair is slowed by s, the fastest not at all */
    POSITION_DYNAMIC, /* NTK with s = factor * length / trained - (factor - 1), at least 1: 1 is the paper's form */
    POSITION_YARN,    /* pairs that turn often as they are, slow ones / s, a ramp between; and a temperature */
    POSITION_LLAMA3,  /* long waves / s, short ones as they are, smooth between */
    POSITION_LONGROPE, /* theta / factors_i, one list for lengths up to the trained one, one beyond */
    POSITION_KINDS
};

/* Fields that a kind does not name are not looked at. */
struct position_method {
    enum position_kind kind;
    double factor;                 /* s >= 1; all but NONE */
    int64_t trained;               /* length before the extension: DYNAMIC, YARN, LLAMA3, LONGROPE */
    double beta_fast, beta_slow;   /* turns within `trained` above and below which YaRN's ramp is flat */
    bool untruncated;              /* the ramp's ends are not rounded to pairs */
    double mscale, mscale_all_dim; /* YaRN's temperature is a quotient of two; 0: not */
    double attention_factor;       /* of every kind, in place of its own; 0: its own */
    double low_freq, high_freq;    /* Llama 3: trained / wavelength below and above which it is flat */
    const float *long_factors, *short_factors; /* [dims/2], borrowed: LONGROPE */
};

/* A kind with factor 1 and the constants of its paper; trained and the factors of LongRoPE are to be set. */
void position_method_defaults(struct position_method *method, enum position_kind kind);

/* "none", "pi", "ntk", "dynamic", "yarn", "llama3", "longrope". */
const char *position_kind_name(enum position_kind kind);

/* ERROR_INPUT where the method cannot be had for so many rotated dimensions of a head. */
int position_method_check(const struct position_method *method, int dims, struct error *err);

/* Whether frequencies change with the length of the text. */
bool position_method_follows(const struct position_method *method);

/* What rotates without a method: theta_i = base^(-2i/dims) / divisors[i]. */
struct position_base {
    int dims;
    double base;
    const float *divisors; /* [dims/2] or NULL */
};

/* thetas [dims/2] for a text of `length` tokens, in radians a position. */
void position_method_thetas(const struct position_method *method, const struct position_base *base, int64_t length,
                            double *thetas);

/* Cosines and sines are multiplied by this (so a score by its square): attention_factor, or a kind's own: YaRN's
 * temperature, 0.1 ln s + 1 if nothing else is given; LongRoPE's sqrt(1 + ln s / ln trained); 1 for the others. */
double position_method_attention_factor(const struct position_method *method);

#endif
