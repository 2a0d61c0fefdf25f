/* SentencePiece's byte-pair encoding, as Llama 2, Code Llama, Mistral and Gemma use it (`llama` in a weights file):
 * start from the characters of a text, then join the neighbours whose union is the piece of the highest score, the
 * leftmost first, until no two neighbours make a piece. A character without a piece becomes the tokens of its
 * bytes.
 *
 * Stands for sentencepiece's model type BPE with byte fallback and the identity normaliser, but for two things in
 * which nothing of a text is lost: bytes that are not UTF-8 become the tokens of single bytes (the original puts
 * U+FFFD in their place), and so does U+2581, the character that the pieces have in the place of a space (the
 * original makes a space of it). Pieces marked unused are no pieces.
 *
 * The time is O(n log n) for a text of n bytes whatever is in it, and nearly linear where the text can be cut
 * (model/spm_split.h); the memory is about 30 bytes for each byte of the longest stretch without a cut. Constant
 * once created: shared by threads.
 */
#ifndef LONGHAUL_MODEL_SPM_H
#define LONGHAUL_MODEL_SPM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bundle.h"
#include "base/error.h"
#include "model/tokens.h"
#include "model/vocab.h"

struct spm;

/* From tokenizer.ggml.scores and .add_space_prefix (true where it is not said). Borrows the vocabulary, which is
 * spelled SPELLING_SENTENCEPIECE, not the bundle. ERROR_INPUT: scores or kinds missing or of the wrong length, a
 * score that is not a number, a text normaliser (only the identity is known), a piece that is not UTF-8. */
struct spm *spm_create(const struct bundle *bundle, const struct vocab *vocab, struct error *err);
void spm_free(struct spm *spm);

/* Append the tokens of a text; their ends count from list->text_bytes, to which its length is added. A space that
 * is put in front stands for no bytes. Bytes without a token are left out and counted in list->unknown_bytes.
 * ERROR_RESOURCE; a stretch of 2^31 bytes that cannot be cut: ERROR_INPUT. */
int spm_encode(const struct spm *spm, struct text text, struct token_list *list, struct error *err);

/* The same for a text that goes on after another: no space is put in front. */
int spm_continue(const struct spm *spm, struct text text, struct token_list *list, struct error *err);

/* True when a space is put in front of every text. */
bool spm_space_prefix(const struct spm *spm);

/* FNV-1a over the order of the pieces and the prefix, going on from `hash`. */
uint64_t spm_hash(const struct spm *spm, uint64_t hash);

#endif
