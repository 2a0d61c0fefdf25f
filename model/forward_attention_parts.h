/* What the files of a forward pass's attention share. Private to model/forward_attention*.c. */
#ifndef LONGHAUL_MODEL_FORWARD_ATTENTION_PARTS_H
#define LONGHAUL_MODEL_FORWARD_ATTENTION_PARTS_H

#include "attention/decoder.h"
#include "model/forward_attention.h"

/* What a layer attends to, and where. */
enum attention_kind {
    ATTENTION_FULL,    /* all of the past, by the ring */
    ATTENTION_WINDOW,  /* on a device that the host cannot reach: the last tokens, by the ring */
    ATTENTION_BOUNDED, /* what its policy keeps, by the host */
};

enum attention_kind forward_attention_kind(const struct forward_options *options, int layer);
int forward_attention_count(const struct forward_options *options, enum attention_kind kind);

/* Without the key offsets, which count nothing; of ATTENTION_FULL or ATTENTION_WINDOW. */
struct memory_shape forward_attention_memory_shape(const struct forward_options *options, enum attention_kind kind);
struct ring_options forward_attention_ring_options(const struct forward_options *options,
                                                   struct transport *transport);

/* The policies of the bounded layers, to be freed; none keeps more than there can be tokens. NULL: out of memory.
 */
struct policy_spec *forward_attention_bounded_specs(const struct forward_options *options, struct error *err);
/* Positions that the layers ask for, those of one rope and of the other alike. */
int64_t forward_attention_positions(const struct forward_options *options, const struct policy_spec *bounded,
                                    int layers);
/* Without offsets and the decoder, which count nothing. */
struct bounded_options forward_attention_bounded_options(const struct forward_options *options,
                                                         const struct policy_spec *specs);
struct decoder_options forward_attention_decoder_options(const struct forward_options *options,
                                                         const struct policy_spec *specs);

#endif
