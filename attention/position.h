/* Positions: from a token's place in the sequence to the angles that rotate its queries and keys (RoPE).
 *
 * A struct rope holds the inverse frequencies of one model and small tables from which the cosines and sines of
 * any position are composed: angle(p) = angle(high part) + angle(low part), one complex product in fp32 from
 * tables computed in fp64, so a million positions cost no million-row table. Rotation happens at use, from raw
 * keys, so that methods which follow the length of the text (position_method.h) need nothing but rope_set_length.
 * rope_create; before each segment or step rope_set_length; then rope_angles / rope_rotate from any thread; at the
 * end rope_free.
 */
#ifndef LONGHAUL_ATTENTION_POSITION_H
#define LONGHAUL_ATTENTION_POSITION_H

#include <stdint.h>

#include "attention/position_method.h"
#include "base/error.h"

/* Which elements of a head form a pair: neighbours (2i, 2i+1), as GGUF's llama; or halves (i, i + dims/2). */
enum rope_pairs { ROPE_NEIGHBOURS, ROPE_HALVES };

/* Positions that every rope has. */
enum { ROPE_LEAST = 1024 };

struct rope_options {
    int dims; /* rotated elements of a head, even; the rest pass through */
    double base;
    enum rope_pairs pairs;
    const float *divisors;         /* [dims/2] or NULL: theta_i is divided by divisors[i] (Llama 3's rope_freqs) */
    int64_t max_positions;         /* positions below this, or below ROPE_LEAST, will be asked for */
    struct position_method method; /* all zero: none */
};

struct rope;

/* Bytes of its tables: two numbers for each of ROPE_LEAST positions and for every ROPE_LEAST-th one, and pair. */
size_t rope_bytes(const struct rope_options *options);

/* Borrows what the options point to. Its length is 0 at first. ERROR_INPUT for options that make no sense. */
struct rope *rope_create(const struct rope_options *options, struct error *err);
void rope_free(struct rope *rope);

/* From now on angles are those of a text of which `length` positions are reached. From one thread, while no other
 * uses the rope; all that has been read off its angles before is stale where rope_revision has changed. Cheap where
 * nothing changes.
 */
void rope_set_length(struct rope *rope, int64_t length);
int64_t rope_revision(const struct rope *rope);

/* cosines [dims/2], sines [dims/2] of a position, times the method's attention factor. The tables have no others
 * than the options name: debug builds end at one. */
void rope_angles(const struct rope *rope, int64_t position, float *cosines, float *sines);

/* The same by element: R(position) x = x_e cosine_e + perp(x)_e sine_e, perp being a quarter turn (rope_rotate by
 * cosines of 0 and sines of 1). Elements that pass through have 1 and 0. cosine, sine [dim]. */
void rope_element_angles(const struct rope *rope, int64_t position, int dim, float *cosine, float *sine);

/* out [dim] = x [dim] rotated by angles from rope_angles, times `scale`; out may be x. */
void rope_rotate(const struct rope *rope, const float *cosines, const float *sines, const float *x, float *out,
                 int dim, float scale);

/* What angles are composed of, to be copied elsewhere. With the numbers of a row as cosine + i sine, those of a
 * position are row[position % ROPE_LEAST] * row[ROPE_LEAST + position / ROPE_LEAST]. Borrowed; other numbers where
 * rope_revision has changed. */
struct rope_tables {
    const float *rows; /* [n_rows][cosine, sine][half] */
    int64_t n_rows;
    int half; /* pairs: dims / 2 */
    enum rope_pairs pairs;
};
struct rope_tables rope_tables(const struct rope *rope);

#endif
