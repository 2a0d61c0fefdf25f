#include "pipeline/prompt.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char separator[] = "\n\n";

/* What stands for the highest part number when the room for a prompt is measured. */
enum { MOST_PARTS = 99999 };

/* The text with {part} and {parts} replaced, to be freed. */
static char *fill_in(const char *text, int64_t part, int64_t parts, struct error *err)
{
    char *out = NULL;
    size_t size;
    FILE *stream = open_memstream(&out, &size);
    if (!stream)
        goto no_memory;
    while (*text) {
        if (strncmp(text, "{part}", 6) == 0) {
            fprintf(stream, "%" PRId64, part);
            text += 6;
        } else if (strncmp(text, "{parts}", 7) == 0) {
            fprintf(stream, "%" PRId64, parts);
            text += 7;
        } else
            fputc(*text++, stream);
    }
    if (fclose(stream) == 0)
        return out;
    free(out);
no_memory:
    error_set(err, ERROR_RESOURCE, "no memory for a prompt");
    return NULL;
}

static struct text whole(const char *string)
{
    return (struct text){string, strlen(string)};
}

/* The user's instruction stands apart from the material as the task's own does. */
static char *instruction(const struct prompter *prompter, enum prompt_role role, int64_t part, int64_t parts,
                         struct error *err)
{
    if (!prompter->instruction)
        return fill_in(prompter->task->prompts[role].after, part, parts, err);
    char *filled = fill_in(prompter->instruction, part, parts, err), *out = NULL;
    if (filled && asprintf(&out, "%s%s", separator, filled) < 0) {
        out = NULL;
        error_set(err, ERROR_RESOURCE, "no memory for a prompt");
    }
    free(filled);
    return out;
}

/* The tokens around the material, and between its two halves. */
struct frame {
    struct chat_prompt chat;
    struct token_list between;
};

static void frame_free(struct frame *frame)
{
    chat_prompt_free(&frame->chat);
    token_list_free(&frame->between);
}

static int frame_make(const struct prompter *prompter, enum prompt_role role, int64_t part, int64_t parts,
                      struct frame *out, struct error *err)
{
    const struct prompt *prompt = &prompter->task->prompts[role];
    char *before = fill_in(prompt->before, part, parts, err);
    char *between = fill_in(prompt->between ? prompt->between : "", part, parts, err);
    char *after = instruction(prompter, role, part, parts, err);
    *out = (struct frame){0};
    int status = -1;
    if (before && between && after) {
        const struct chat_turn turn = {.before = whole(before), .after = whole(after)};
        status = chat_prompt(prompter->tokenizer, prompter->format, &turn, &out->chat, err);
        if (status == 0)
            status = tokenizer_continue(prompter->tokenizer, whole(between), &out->between, err);
    }
    if (status != 0)
        frame_free(out);
    free(before);
    free(between);
    free(after);
    return status;
}

static int64_t frame_tokens(const struct frame *frame)
{
    return frame->chat.prefix.count + frame->between.count + frame->chat.suffix.count;
}

static void append(struct job *job, const int32_t *tokens, int64_t n)
{
    if (n > 0)
        memcpy(job->tokens + job->n_tokens, tokens, (size_t)n * sizeof *tokens);
    job->n_tokens += n;
}

static int make_room(struct job *job, int64_t n, struct error *err)
{
    job->n_tokens = 0;
    job->tokens = malloc((size_t)n * sizeof *job->tokens);
    return job->tokens ? 0 : error_set(err, ERROR_RESOURCE, "no memory for a job of %lld tokens", (long long)n);
}

int prompt_bare(const struct prompter *prompter, const struct prompt_material *material, struct job *job,
                struct error *err)
{
    const int32_t bos = tokenizer_bos(prompter->tokenizer);
    if (make_room(job, material->n_tokens + 1, err) != 0)
        return -1;
    if (tokenizer_add_bos(prompter->tokenizer))
        append(job, &bos, 1);
    append(job, material->tokens, material->n_tokens);
    return 0;
}

int prompt_compose(const struct prompter *prompter, enum prompt_role role, const struct prompt_material *material,
                   struct job *job, struct error *err)
{
    if (prompter->task->job == JOB_SCORE) /* to score a text is to ask nothing */
        return prompt_bare(prompter, material, job, err);
    struct frame frame;
    if (frame_make(prompter, role, material->part, material->parts, &frame, err) != 0)
        return -1;
    const int status = make_room(job, frame_tokens(&frame) + material->n_tokens + material->n_next, err);
    if (status == 0) {
        append(job, frame.chat.prefix.ids, frame.chat.prefix.count);
        append(job, material->tokens, material->n_tokens);
        append(job, frame.between.ids, frame.between.count);
        append(job, material->next, material->n_next);
        append(job, frame.chat.suffix.ids, frame.chat.suffix.count);
    }
    frame_free(&frame);
    return status;
}

int prompt_overhead(const struct prompter *prompter, enum prompt_role role, int64_t *out, struct error *err)
{
    struct frame frame;
    if (frame_make(prompter, role, MOST_PARTS, MOST_PARTS, &frame, err) != 0)
        return -1;
    *out = frame_tokens(&frame);
    frame_free(&frame);
    return 0;
}

int prompt_separate(const struct prompter *prompter, struct token_list *list, struct error *err)
{
    return tokenizer_continue(prompter->tokenizer, whole(separator), list, err);
}
