/* Architectures: one table row each, and the shape of a model as its file states it.
 *
 * All of them are decoder-only transformers with RMSNorm before attention and before a SwiGLU feed-forward
 * layer, grouped-query attention and rotary positions; a row says in what they differ. `llama` serves Llama 2
 * and 3, Code Llama, Mistral and SmolLM2; `qwen2` serves Qwen 2 and 2.5.
 */
#ifndef LONGHAUL_MODEL_ARCH_H
#define LONGHAUL_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "attention/position.h"
#include "base/bundle.h"
#include "base/error.h"

struct arch {
    const char *name;      /* general.architecture, and the prefix of the other keys */
    enum rope_pairs pairs; /* GGUF's llama has its Q and K rows permuted so that neighbours form a pair */
    bool qkv_bias;         /* q, k and v carry biases; where false, a file that has them is refused */
    int global_every;      /* where the file names a window: every so many-th layer is global; 0: none is */
};

struct model_shape {
    int layers, width, ffn;
    int heads, kv_heads, dim; /* dim: elements of a head */
    int vocab;
    int rope_dims;
    double rope_base;
    double norm_eps;
    int64_t context; /* tokens the model was trained to see */
    int64_t window;  /* of its local layers, the token itself counted; 0: it has none */
};

/* The row for the bundle's general.architecture; ERROR_INPUT lists what is known. */
const struct arch *arch_find(const struct bundle *bundle, struct error *err);

/* Read and check the shape; ERROR_INPUT names the key that is missing or impossible. What the file asks for and
 * this program does not do (position scaling, experts) is refused, never ignored. */
int model_shape_read(const struct arch *arch, const struct bundle *bundle, struct model_shape *out,
                     struct error *err);

#endif
