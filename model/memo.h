/* The tokens of short pieces of text seen before: most words of a document come back. A table of fixed size; a
 * newcomer takes the slot of what was there. One per thread. */
#ifndef LONGHAUL_MODEL_MEMO_H
#define LONGHAUL_MODEL_MEMO_H

#include <stdbool.h>

#include "base/error.h"
#include "base/text.h"
#include "model/tokens.h"
#include "model/vocab.h"

struct memo;

/* ERROR_RESOURCE. */
struct memo *memo_create(struct error *err);
void memo_free(struct memo *memo);

/* *found = whether the piece is known; then its tokens are appended, with ends from list->text_bytes on, by the
 * lengths of the vocabulary's pieces. list->text_bytes stays. ERROR_RESOURCE. */
int memo_append(const struct memo *memo, const struct vocab *vocab, struct text piece, struct token_list *list,
                bool *found, struct error *err);

/* Remember list->ids[first ..] as the tokens of a piece, whose bytes are all in them, if both are short. */
void memo_keep(struct memo *memo, struct text piece, const struct token_list *list, int64_t first);

#endif
