#define PCRE2_CODE_UNIT_WIDTH 8
#include "model/pretokenize.h"

#include <pcre2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* White space is the White_Space property of Unicode, which PCRE2's \s is not quite (U+180E). */
#define SPACE "\\t-\\r\\x{85}\\p{Z}"
/* Numbers: PCRE2 before 10.43 does not know those of Unicode 15. */
#define NUMBER     "\\p{N}\\x{1d2c0}-\\x{1d2d3}"
#define CONTRACTED "'(?:[sdmt]|ll|ve|re)"

/* Spaces before a word: all but the last, which goes with the word. */
#define SPACES "[" SPACE "]+(?![^" SPACE "])|[" SPACE "]+"

#define GPT2 CONTRACTED "| ?\\p{L}+| ?[" NUMBER "]+| ?[^" SPACE "\\p{L}" NUMBER "]+|" SPACES

/* Every digit is cut out first; what lies between is split as by GPT-2, so a digit ends the text before it. */
#define SMOLLM                                                                                                     \
    CONTRACTED "| ?\\p{L}+|[" NUMBER "]| ?[^" SPACE "\\p{L}" NUMBER "]+|[" SPACE "]+(?![^" SPACE NUMBER            \
               "])|[" SPACE "]+"

/* Llama 3 and Qwen 2 differ in how many digits stay together. */
#define WORDS_OF_1_TO(digits)                                                                                      \
    "(?i:" CONTRACTED ")|[^\\r\\n\\p{L}" NUMBER "]?\\p{L}+|" digits "| ?[^" SPACE "\\p{L}" NUMBER                  \
    "]+[\\r\\n]*|[" SPACE "]*[\\r\\n]+|" SPACES

static const struct pretokenizer_rule RULES[] = {
    {.name = "gpt-2", .pattern = GPT2},
    {.name = "llama-bpe", .pattern = WORDS_OF_1_TO("[" NUMBER "]{1,3}"), .whole_pieces = true, .add_bos = true},
    {.name = "qwen2", .pattern = WORDS_OF_1_TO("[" NUMBER "]"), .nfc = true},
    {.name = "smollm", .pattern = SMOLLM},
};
enum { N_RULES = sizeof RULES / sizeof RULES[0] };

enum { STACK_START = 32 << 10, STACK_MOST = 4 << 20 };

struct pretokenizer {
    const struct pretokenizer_rule *rule;
    pcre2_code *code;
};

struct pretokenize_work {
    const pcre2_code *code;
    pcre2_match_data *match;
    pcre2_match_context *context;
    pcre2_jit_stack *stack;
};

static const struct pretokenizer_rule *find_rule(struct text name, struct error *err)
{
    char known[128] = "";
    for (int i = 0; i < N_RULES; i++) {
        if (text_equals(name, RULES[i].name))
            return &RULES[i];
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", RULES[i].name);
    }
    error_set(err, ERROR_INPUT, "tokenizer.ggml.pre is '%.*s', which is unknown; known are %s",
              (int)(name.length < 64 ? name.length : 64), name.length ? name.bytes : "", known);
    return NULL;
}

struct pretokenizer *pretokenizer_create(struct text name, struct error *err)
{
    const struct pretokenizer_rule *rule = find_rule(name, err);
    if (!rule)
        return NULL;
    struct pretokenizer *pretokenizer = calloc(1, sizeof *pretokenizer);
    if (!pretokenizer) {
        error_errno(err, "making a pre-tokenizer");
        return NULL;
    }
    int code = 0;
    PCRE2_SIZE at = 0;
    pretokenizer->rule = rule;
    pretokenizer->code = pcre2_compile((PCRE2_SPTR)rule->pattern, PCRE2_ZERO_TERMINATED,
                                       PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &code, &at, NULL);
    if (!pretokenizer->code) {
        error_set(err, ERROR_INTERNAL, "the pattern of pre-tokenizer %s is wrong at %zu", rule->name, at);
        pretokenizer_free(pretokenizer);
        return NULL;
    }
    /* Where PCRE2 has no compiler for this machine its interpreter gives the same pieces, more slowly. */
    pcre2_jit_compile(pretokenizer->code, PCRE2_JIT_COMPLETE);
    return pretokenizer;
}

void pretokenizer_free(struct pretokenizer *pretokenizer)
{
    if (!pretokenizer)
        return;
    pcre2_code_free(pretokenizer->code);
    free(pretokenizer);
}

const struct pretokenizer_rule *pretokenizer_rule(const struct pretokenizer *pretokenizer)
{
    return pretokenizer->rule;
}

struct pretokenize_work *pretokenize_work_create(const struct pretokenizer *pretokenizer, struct error *err)
{
    struct pretokenize_work *work = calloc(1, sizeof *work);
    if (work) {
        work->code = pretokenizer->code;
        work->match = pcre2_match_data_create(1, NULL);
        work->context = pcre2_match_context_create(NULL);
        work->stack = pcre2_jit_stack_create(STACK_START, STACK_MOST, NULL);
    }
    if (!work || !work->match || !work->context || !work->stack) {
        error_set(err, ERROR_RESOURCE, "no memory to split text into pieces");
        pretokenize_work_free(work);
        return NULL;
    }
    /* A run of spaces may be millions long: going back through it is one match, not a runaway pattern. */
    pcre2_set_match_limit(work->context, UINT32_MAX);
    pcre2_jit_stack_assign(work->context, NULL, work->stack);
    return work;
}

void pretokenize_work_free(struct pretokenize_work *work)
{
    if (!work)
        return;
    pcre2_match_data_free(work->match);
    pcre2_match_context_free(work->context);
    pcre2_jit_stack_free(work->stack);
    free(work);
}

int pretokenize_next(struct pretokenize_work *work, struct text text, size_t start, size_t *end, struct error *err)
{
    int found = pcre2_match(work->code, (PCRE2_SPTR)text.bytes, text.length, start, PCRE2_NO_UTF_CHECK, work->match,
                            work->context);
    const PCRE2_SIZE *span = pcre2_get_ovector_pointer(work->match);
    if (found > 0 && span[1] > start) {
        *end = span[1];
        return 0;
    }
    PCRE2_UCHAR message[128] = "no pattern matches";
    if (found < 0)
        pcre2_get_error_message(found, message, sizeof message);
    return error_set(err, ERROR_INTERNAL, "splitting text into pieces, at byte %zu: %s", start,
                     (const char *)message);
}
