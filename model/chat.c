#include "model/chat.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "model/marks.h"

/* The words of a format around the texts. Marks in them are special tokens. */
struct shape {
    const char *sign; /* what tells the format in a chat template */
    const char *system_open, *system_close;
    const char *user_open, *user_close;
    bool system_inside; /* the system's text stands at the start of the user's turn */
    bool text_marks;    /* the marks are plain text */
};

static const struct shape SHAPES[] = {
    [CHAT_PLAIN] =
        {.system_open = "", .system_close = "\n\n", .user_open = "", .user_close = "", .system_inside = true},
    [CHAT_CHATML] = {.sign = "<|im_start|>",
                     .system_open = "<|im_start|>system\n",
                     .system_close = "<|im_end|>\n",
                     .user_open = "<|im_start|>user\n",
                     .user_close = "<|im_end|>\n<|im_start|>assistant\n"},
    [CHAT_LLAMA3] = {.sign = "<|start_header_id|>",
                     .system_open = "<|start_header_id|>system<|end_header_id|>\n\n",
                     .system_close = "<|eot_id|>",
                     .user_open = "<|start_header_id|>user<|end_header_id|>\n\n",
                     .user_close = "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"},
    [CHAT_LLAMA2] = {.sign = "<<SYS>>",
                     .system_open = "<<SYS>>\n",
                     .system_close = "\n<</SYS>>\n\n",
                     .user_open = "[INST] ",
                     .user_close = " [/INST]",
                     .system_inside = true,
                     .text_marks = true},
    [CHAT_MISTRAL] = {.sign = "[INST]",
                      .system_open = "",
                      .system_close = "\n\n",
                      .user_open = "[INST]",
                      .user_close = "[/INST]",
                      .system_inside = true},
    /* its sign is that of CHAT_MISTRAL */
    [CHAT_MISTRAL_V1] = {.system_open = "",
                         .system_close = "\n\n",
                         .user_open = "[INST] ",
                         .user_close = " [/INST]",
                         .system_inside = true,
                         .text_marks = true},
    [CHAT_GEMMA] = {.sign = "<start_of_turn>",
                    .system_open = "",
                    .system_close = "\n\n",
                    .user_open = "<start_of_turn>user\n",
                    .user_close = "<end_of_turn>\n<start_of_turn>model\n",
                    .system_inside = true},
};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0] };

/* The text behind the first `sign` in `text`; bytes NULL when it is not there. */
static struct text text_behind(struct text text, const char *sign)
{
    const char *at = text.length ? memmem(text.bytes, text.length, sign, strlen(sign)) : NULL;
    if (!at)
        return (struct text){NULL, 0};
    at += strlen(sign);
    return (struct text){at, text.length - (size_t)(at - text.bytes)};
}

enum chat_format chat_format_detect(const struct tokenizer *tokenizer)
{
    struct text template = tokenizer_chat_template(tokenizer);
    for (int format = 0; format < N_SHAPES; format++)
        if (SHAPES[format].sign && text_behind(template, SHAPES[format].sign).bytes)
            return format == CHAT_MISTRAL && tokenizer_special(tokenizer, "[INST]") < 0 ? CHAT_MISTRAL_V1
                                                                                        : (enum chat_format)format;
    if (template.length > 0)
        log_warn("the model's chat template is not one that is known: prompts are plain text");
    return CHAT_PLAIN;
}

/* The system's text that a ChatML template writes by itself: a literal between the marks of a system turn. Bytes
 * NULL when it has none. */
static struct text default_system(struct text template)
{
    while ((template = text_behind(template, "<|im_start|>system")).bytes) {
        struct text text = template;
        if (text.length > 0 && text.bytes[0] == '\n')
            text = (struct text){text.bytes + 1, text.length - 1};
        else if (text.length > 1 && memcmp(text.bytes, "\\n", 2) == 0)
            text = (struct text){text.bytes + 2, text.length - 2};
        else
            continue;
        struct text rest = text_behind(text, "<|im_end|>");
        if (!rest.bytes)
            break;
        text.length = (size_t)(rest.bytes - text.bytes) - strlen("<|im_end|>");
        bool literal = true;
        for (size_t i = 0; i < text.length && literal; i++)
            literal = !strchr("'\"{}\\", text.bytes[i]);
        if (literal)
            return text;
    }
    return (struct text){NULL, 0};
}

/* A list of tokens under construction. Text is held back until a mark follows, so that what stands between two
 * marks is tokenized in one. */
struct builder {
    const struct tokenizer *tokenizer;
    const struct shape *shape;
    struct token_list *list;
    bool inside; /* a text of which the tokens are not in the list goes on in it */
    char *held;
    size_t length, capacity;
};

static int put_text(struct builder *builder, struct text text, struct error *err)
{
    if (text.length == 0)
        return 0;
    if (text.length > builder->capacity - builder->length) {
        size_t capacity = builder->length + text.length + 256;
        char *held = realloc(builder->held, capacity);
        if (!held)
            return error_errno(err, "writing a prompt of %zu bytes", capacity);
        builder->held = held;
        builder->capacity = capacity;
    }
    memcpy(builder->held + builder->length, text.bytes, text.length);
    builder->length += text.length;
    return 0;
}

static int flush(struct builder *builder, struct error *err)
{
    struct text text = {builder->held, builder->length};
    builder->length = 0;
    if (text.length == 0)
        return 0;
    bool inside = builder->inside;
    builder->inside = false;
    return inside ? tokenizer_continue(builder->tokenizer, text, builder->list, err)
                  : tokenizer_encode(builder->tokenizer, text, builder->list, err);
}

static int put_special(struct builder *builder, const char *name, struct error *err)
{
    int32_t id = tokenizer_special(builder->tokenizer, name);
    if (id < 0)
        return error_set(err, ERROR_INPUT, "the vocabulary has no %s, which the model's chat format needs", name);
    if (flush(builder, err) < 0)
        return -1;
    builder->inside = false;
    return token_list_append(builder->list, id, builder->list->text_bytes, err);
}

/* Words of the format: text and marks. */
static int put_words(struct builder *builder, const char *words, struct error *err)
{
    while (*words) {
        const char *mark = builder->shape->text_marks ? NULL : mark_at((struct text){words, strlen(words)});
        if (mark ? put_special(builder, mark, err) < 0 : put_text(builder, (struct text){words, 1}, err) < 0)
            return -1;
        words += mark ? strlen(mark) : 1;
    }
    return 0;
}

static int put_system(struct builder *builder, struct text system, struct error *err)
{
    const struct shape *shape = builder->shape;
    if (system.length == 0)
        return 0;
    return put_words(builder, shape->system_open, err) < 0 || put_text(builder, system, err) < 0 ||
                   put_words(builder, shape->system_close, err) < 0
               ? -1
               : 0;
}

static int write_prefix(struct builder *builder, const struct chat_turn *turn, struct error *err)
{
    const struct shape *shape = builder->shape;
    struct text system = turn->system;
    if (!system.bytes && shape == &SHAPES[CHAT_CHATML])
        system = default_system(tokenizer_chat_template(builder->tokenizer));
    if (tokenizer_add_bos(builder->tokenizer) &&
        token_list_append(builder->list, tokenizer_bos(builder->tokenizer), 0, err) < 0)
        return -1;
    if (!shape->system_inside && put_system(builder, system, err) < 0)
        return -1;
    if (put_words(builder, shape->user_open, err) < 0)
        return -1;
    if (shape->system_inside && put_system(builder, system, err) < 0)
        return -1;
    return put_text(builder, turn->before, err) < 0 ? -1 : flush(builder, err);
}

static int write_suffix(struct builder *builder, const struct chat_turn *turn, struct error *err)
{
    builder->inside = true;
    if (put_text(builder, turn->after, err) < 0 || put_words(builder, builder->shape->user_close, err) < 0)
        return -1;
    return flush(builder, err);
}

int chat_prompt(const struct tokenizer *tokenizer, enum chat_format format, const struct chat_turn *turn,
                struct chat_prompt *out, struct error *err)
{
    *out = (struct chat_prompt){0};
    struct builder builder = {.tokenizer = tokenizer, .shape = &SHAPES[format], .list = &out->prefix};
    int status = write_prefix(&builder, turn, err);
    builder.list = &out->suffix;
    if (status == 0)
        status = write_suffix(&builder, turn, err);
    free(builder.held);
    if (status < 0)
        chat_prompt_free(out);
    return status;
}

void chat_prompt_free(struct chat_prompt *prompt)
{
    token_list_free(&prompt->prefix);
    token_list_free(&prompt->suffix);
}
