/* Perplexity by position: a score's predictions in buckets of as many positions each, so that one can see whether a
 * text gets harder to predict the further the model has read.
 *
 * A bucket is 1, 2 or 5 times a power of ten wide, the least of at least BUCKETS_LEAST_WIDTH with which
 * BUCKETS_MOST buckets hold them all: 1,000, 2,000, 5,000, ... positions. Bucket b is of the positions from
 * b * width to before (b + 1) * width of the document; the last one ends with the document.
 */
#ifndef LONGHAUL_PIPELINE_BUCKETS_H
#define LONGHAUL_PIPELINE_BUCKETS_H

#include <stdint.h>

#include "io/results.h"

enum { BUCKETS_MOST = 16, BUCKETS_LEAST_WIDTH = 1000 };

/* The width for positions 0 .. end - 1. */
int64_t buckets_width(int64_t end);

/* Sort score's predictions (positions rising) into out; the number of buckets, none of them empty. */
int64_t buckets_fill(const struct result_score *score, struct result_bucket out[BUCKETS_MOST]);

#endif
