/* Prompts: from a task's words and a document's tokens to the tokens of a job, in the model's chat format.
 *
 * The user's material goes in as the tokens it already is; text in it that looks like a special token stays text.
 */
#ifndef LONGHAUL_PIPELINE_PROMPT_H
#define LONGHAUL_PIPELINE_PROMPT_H

#include <stdint.h>

#include "base/error.h"
#include "model/chat.h"
#include "model/tokenizer.h"
#include "pipeline/job.h"
#include "pipeline/task.h"

struct prompter {
    const struct task *task; /* borrowed, as the tokenizer */
    const struct tokenizer *tokenizer;
    enum chat_format format;
    const char *instruction; /* replaces the `after` of every role; NULL: the task's own */
};

/* What the prompt is about. */
struct prompt_material {
    const int32_t *tokens;
    int64_t n_tokens;
    const int32_t *next; /* ROLE_REFINE: the chunk, behind the answer so far */
    int64_t n_next;
    int64_t part, parts;
};

/* Fill a job's tokens. job->tokens is to be freed with the job. */
int prompt_compose(const struct prompter *prompter, enum prompt_role role, const struct prompt_material *material,
                   struct job *job, struct error *err);

/* Fill a job's tokens with the material as it is: only BOS stands before it, where the model wants one. */
int prompt_bare(const struct prompter *prompter, const struct prompt_material *material, struct job *job,
                struct error *err);

/* *out = tokens of the role's prompt without its material, at most. */
int prompt_overhead(const struct prompter *prompter, enum prompt_role role, int64_t *out, struct error *err);

/* Append the words that stand between two answers in a ROLE_REDUCE. */
int prompt_separate(const struct prompter *prompter, struct token_list *list, struct error *err);

#endif
