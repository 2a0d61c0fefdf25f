/* Architectures: one table row each, and the shape of a model as its file states it.
 *
 * All of them are decoder-only transformers with RMSNorm before attention and before a gated feed-forward
 * layer, grouped-query attention and rotary positions; a row says in what they differ. `llama` serves Llama 2
 * and 3, Code Llama, Mistral and SmolLM2; `qwen2` serves Qwen 2 and 2.5; `gemma3` serves the text of Gemma 3.
 */
#ifndef LONGHAUL_MODEL_ARCH_H
#define LONGHAUL_MODEL_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include "attention/position.h"
#include "base/bundle.h"
#include "base/error.h"
#include "model/ops.h"

struct arch {
    const char *name;      /* general.architecture, and the prefix of the other keys */
    enum rope_pairs pairs; /* GGUF's llama has its Q and K rows permuted so that neighbours form a pair */
    bool qkv_bias;         /* q, k and v carry biases; where false, a file that has them is refused */
    bool head_norms;       /* RMSNorm of each head's query and key, before they are rotated */
    bool post_norms;       /* RMSNorm also of what attention and the feed-forward layer add to the stream */
    bool embedding_scaled; /* by sqrt(width) */
    enum activation activation;
    int global_every; /* every so many-th layer is global, the others local; 0: all local if there is a window */
    double local_rope_base; /* of local layers, where the file names none; 0: they share the global ones' rope */
    int width_scaled;       /* models of so many layers divide q.k by sqrt(width / heads), not by sqrt(dim) */
};

struct model_shape {
    int layers, width, ffn;
    int heads, kv_heads, dim; /* dim: elements of a head */
    int vocab;
    int rope_dims;
    double rope_base;
    double local_rope_base; /* of the local layers' own rope; 0: they share the global ones' */
    double attention_scale; /* of q.k */
    float embedding_scale;
    int global_every; /* as in struct arch */
    double norm_eps;
    int64_t context; /* tokens the model was trained to see */
    int64_t window;  /* of its local layers, the token itself counted; 0: it has none */
};

/* The row for the bundle's general.architecture; ERROR_INPUT lists what is known. */
const struct arch *arch_find(const struct bundle *bundle, struct error *err);

/* Read and check the shape; ERROR_INPUT names the key that is missing or impossible. What the file asks for and
 * this program does not do (experts, capped logits) is refused, never ignored. */
int model_shape_read(const struct arch *arch, const struct bundle *bundle, struct model_shape *out,
                     struct error *err);

#endif
