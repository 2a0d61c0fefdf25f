/* The tokenizer of a model: text to token ids and back. Byte-level BPE, as GPT-2, Llama 3, Qwen 2 and SmolLM use
 * it, and SentencePiece's BPE (model/spm.h), as Llama 2, Code Llama, Mistral and Gemma do.
 *
 * tokenizer_create from an open weights file, any number of calls below from any number of threads at once (a
 * tokenizer is constant; each call of tokenizer_encode brings its own working memory), tokenizer_free. The weights
 * file may be closed once the tokenizer is made.
 *
 * Nothing is lost: bytes that are not UTF-8 become the tokens of single bytes. Only a byte that the vocabulary has
 * no token for cannot be kept (SmolLM lacks six control characters and the lead bytes F1 and F2); it is left
 * out, as in the original tokenizers, and counted. Ids equal those of the original tokenizers for all valid UTF-8,
 * but for three things that stay text: U+2581 in SentencePiece, the marks of chat formats (model/marks.h), and the
 * names of added tokens in byte-level BPE (Qwen's <tool_call>).
 */
#ifndef LONGHAUL_MODEL_TOKENIZER_H
#define LONGHAUL_MODEL_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/bundle.h"
#include "base/error.h"
#include "model/tokens.h"

struct tokenizer;

/* From the values under tokenizer.ggml. ERROR_INPUT, naming the file and the key: a kind of tokenizer or a
 * pre-tokenizer that is not known, a vocabulary or merges that are malformed, special ids out of range. */
struct tokenizer *tokenizer_create(const struct bundle *bundle, struct error *err);
void tokenizer_free(struct tokenizer *tokenizer);

/* Append the tokens of a text to `out`, without BOS or EOS. The names of control tokens in it are plain text;
 * SentencePiece's user-defined pieces are tokens wherever they stand. A model that wants a space in front of a text
 * (Llama 2, Mistral; not Gemma) gets one in each call, standing for no bytes.
 * out->ends say which bytes each token stands for (model/tokens.h). After a failure `out` is as it was before.
 * ERROR_RESOURCE; ERROR_INPUT for 2^31 bytes without a place to split. */
int tokenizer_encode(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                     struct error *err);

/* The same for a text that goes on after another: no space is put in front. */
int tokenizer_continue(const struct tokenizer *tokenizer, struct text text, struct token_list *out,
                       struct error *err);

/* The bytes of a token; none for a control token or an id out of range. Borrowed from the tokenizer. */
struct text tokenizer_piece(const struct tokenizer *tokenizer, int32_t id);

/* The same for the first token of a text: without the space that the model wants in front. So the first piece of
 * the tokens of a text, and the pieces of the others, are the text again. */
struct text tokenizer_first_piece(const struct tokenizer *tokenizer, int32_t id);

/* *out = the text that tokens [n] are, terminated, in the arena. */
int tokenizer_spell(const struct tokenizer *tokenizer, const int32_t *tokens, int64_t n, struct arena *arena,
                    struct text *out, struct error *err);

/* How many ids there are: 0 .. size - 1. */
int64_t tokenizer_size(const struct tokenizer *tokenizer);

/* The control or user-defined token of that name ("<|im_start|>"), or -1. */
int32_t tokenizer_special(const struct tokenizer *tokenizer, const char *name);

/* Beginning of text; -1 where the model has none. */
int32_t tokenizer_bos(const struct tokenizer *tokenizer);

/* True when the model expects BOS in front of every sequence. */
bool tokenizer_add_bos(const struct tokenizer *tokenizer);

/* True when a generated token means that the answer is over. */
bool tokenizer_is_end(const struct tokenizer *tokenizer, int32_t id);

/* The model's chat template (Jinja) as its file has it; empty without one. Borrowed from the tokenizer. */
struct text tokenizer_chat_template(const struct tokenizer *tokenizer);

/* A number that two tokenizers share only when they give the same ids for the same text. */
uint64_t tokenizer_hash(const struct tokenizer *tokenizer);

#endif
