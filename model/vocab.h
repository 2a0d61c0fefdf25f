/* The vocabulary of a tokenizer: ids, kinds, and the bytes that each id stands for.
 *
 * A weights file spells pieces in one of two ways, which are undone here: in the byte-level alphabet of GPT-2, in
 * which every byte is one printable character ("Ġ" is a space), or as SentencePiece does, where U+2581 ("▁") is a
 * space and a byte has a name like "<0x0A>". Everything is copied from the bundle, which may be closed
 * afterwards. Constant once created: any number of threads may read it.
 */
#ifndef LONGHAUL_MODEL_VOCAB_H
#define LONGHAUL_MODEL_VOCAB_H

#include <stdint.h>

#include "base/bundle.h"
#include "base/error.h"

/* The numbers of tokenizer.ggml.token_type. */
enum token_kind { TOKEN_NORMAL = 1, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_USER, TOKEN_UNUSED, TOKEN_BYTE };

enum vocab_spelling { SPELLING_BYTE_LEVEL, SPELLING_SENTENCEPIECE };

struct vocab;

/* From tokenizer.ggml.tokens and tokenizer.ggml.token_type. ERROR_INPUT: missing, of the wrong length or kind, a
 * normal piece that is empty, outside the alphabet, or there twice; a byte of SentencePiece that is misnamed. */
struct vocab *vocab_create(const struct bundle *bundle, enum vocab_spelling spelling, struct error *err);
void vocab_free(struct vocab *vocab);

int64_t vocab_size(const struct vocab *vocab);

/* The kind and the bytes of a token, 0 <= id < size; control and unused tokens have no bytes. Borrowed. */
enum token_kind vocab_kind(const struct vocab *vocab, int32_t id);
struct text vocab_piece(const struct vocab *vocab, int32_t id);

/* The normal token with exactly these bytes, or -1. */
int32_t vocab_find(const struct vocab *vocab, struct text piece);

/* The control or user-defined token of that name, or -1. */
int32_t vocab_find_special(const struct vocab *vocab, const char *name);

/* Undo the byte-level alphabet: out [text.length] receives the bytes; returns how many, or -1 when a character
 * is not of the alphabet. */
int64_t vocab_bytes_from_alphabet(struct text text, char *out);

/* FNV-1a over every piece and kind, going on from `hash`. */
uint64_t vocab_hash(const struct vocab *vocab, uint64_t hash);

#endif
