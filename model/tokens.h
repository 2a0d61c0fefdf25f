/* A growable list of token ids that knows which bytes of the text each token stands for.
 *
 * Start with a zeroed struct; append; token_list_free. `ends` are counted in bytes of all the text that has been
 * appended, in order: token i stands for the bytes from ends[i - 1] (0 for the first) to ends[i]. A control token
 * stands for none. Bytes that the vocabulary has no token for, and bytes that a normaliser takes away, belong to
 * the token behind them, or to the last token where none follows: so ends[count - 1] == text_bytes whenever
 * text was appended and count > 0.
 */
#ifndef LONGHAUL_MODEL_TOKENS_H
#define LONGHAUL_MODEL_TOKENS_H

#include <stdint.h>

#include "base/error.h"

struct token_list {
    int32_t *ids;  /* [count] */
    int64_t *ends; /* [count] */
    int64_t count, capacity;
    int64_t text_bytes;    /* bytes of text appended so far */
    int64_t unknown_bytes; /* those among them that the vocabulary has no token for */
};

void token_list_free(struct token_list *list);

/* Room for `more` further tokens. ERROR_RESOURCE. */
int token_list_reserve(struct token_list *list, int64_t more, struct error *err);

/* One token more, ending at `end`. ERROR_RESOURCE. */
int token_list_append(struct token_list *list, int32_t id, int64_t end, struct error *err);

/* All of `from` behind `list`, its text behind the list's text. ERROR_RESOURCE. */
int token_list_join(struct token_list *list, const struct token_list *from, struct error *err);

#endif
