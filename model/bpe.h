/* Byte-pair encoding of one piece: start from its bytes, then join the neighbours of the lowest rank, the leftmost
 * first, until no two neighbours can be joined.
 *
 * The time is O(n log n) for a piece of n bytes whatever is in it, the memory about 30 n bytes for pieces that
 * are not short. A `struct bpe` is constant once created and shared by threads; each thread brings its own
 * `struct bpe_work`, which also remembers the short pieces it has seen.
 */
#ifndef LONGHAUL_MODEL_BPE_H
#define LONGHAUL_MODEL_BPE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bundle.h"
#include "base/error.h"
#include "model/tokens.h"
#include "model/vocab.h"

struct bpe;
struct bpe_work;

/* Merges from tokenizer.ggml.merges, "left right" each, the first of the lowest rank. `whole_pieces`: a piece that
 * is in the vocabulary is that token, whatever the merges say (Llama 3). Borrows the vocabulary, not the bundle.
 * ERROR_INPUT: merges missing, malformed, there twice, or with parts that the vocabulary lacks. */
struct bpe *bpe_create(const struct bundle *bundle, const struct vocab *vocab, bool whole_pieces,
                       struct error *err);
void bpe_free(struct bpe *bpe);

/* ERROR_RESOURCE. */
struct bpe_work *bpe_work_create(struct error *err);
void bpe_work_free(struct bpe_work *work);

/* Append the tokens of a piece; their ends count from list->text_bytes, to which the piece's length is added.
 * Bytes without a token are left out before merging, as the original tokenizers do, and counted in
 * list->unknown_bytes. ERROR_RESOURCE; a piece of 2^31 bytes or more: ERROR_INPUT. */
int bpe_encode(const struct bpe *bpe, struct bpe_work *work, struct text piece, struct token_list *list,
               struct error *err);

/* FNV-1a over the merges, going on from `hash`. */
uint64_t bpe_hash(const struct bpe *bpe, uint64_t hash);

#endif
