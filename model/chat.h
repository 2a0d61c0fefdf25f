/* Chat formats: how a model that follows instructions wants its prompt written.
 *
 * A prompt is built around material whose tokens the caller has: `prefix` (BOS, the system turn, the user turn's
 * header, the text before the material), then the material, then `suffix` (the text after it, the end of the turn,
 * the header of the answer). The marks of the format are special tokens (plain text in llama2 and mistral-v1); the
 * texts are plain text whatever is in them. The seams are seams of tokens too: the prompt differs from that of one
 * text in one piece where a token would have crossed them, so let `before` end, and `after` begin, with a line
 * break.
 */
#ifndef LONGHAUL_MODEL_CHAT_H
#define LONGHAUL_MODEL_CHAT_H

#include "base/error.h"
#include "base/text.h"
#include "model/tokenizer.h"

enum chat_format {
    CHAT_PLAIN, /* no turns: the model just writes on */
    CHAT_CHATML,
    CHAT_LLAMA3,
    CHAT_LLAMA2,
    CHAT_MISTRAL,    /* with the marks as tokens: v2 of the format and later */
    CHAT_MISTRAL_V1, /* with the marks as plain text */
    CHAT_GEMMA,
};

/* By the chat template of the model's file; CHAT_PLAIN when it has none, or one that is not known (then the log
 * says so). */
enum chat_format chat_format_detect(const struct tokenizer *tokenizer);

struct chat_turn {
    struct text system; /* {NULL, 0}: what the model's template has by itself, if anything */
    struct text before, after;
};

struct chat_prompt {
    struct token_list prefix, suffix;
};

/* Fill *out, to be freed with chat_prompt_free. ERROR_INPUT when the vocabulary lacks a mark of the format. */
int chat_prompt(const struct tokenizer *tokenizer, enum chat_format format, const struct chat_turn *turn,
                struct chat_prompt *out, struct error *err);
void chat_prompt_free(struct chat_prompt *prompt);

#endif
