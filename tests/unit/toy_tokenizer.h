/* A small byte-level tokenizer made by hand, as a bundle: the 256 bytes, the results of some merges, the special
 * tokens asked for. A test changes what it wants to see refused. */
#ifndef LONGHAUL_TESTS_TOY_TOKENIZER_H
#define LONGHAUL_TESTS_TOY_TOKENIZER_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "base/bundle.h"
#include "base/utf8.h"

enum { TOY_TOKENS = 600, TOY_MERGES = 300, TOY_VALUES = 10, TOY_NAME = 64 };

struct toy {
    struct bundle bundle;
    struct value values[TOY_VALUES];
    struct text tokens[TOY_TOKENS];
    int64_t kinds[TOY_TOKENS];
    struct text merges[TOY_MERGES];
    char token_names[TOY_TOKENS][TOY_NAME];
    char merge_names[TOY_MERGES][TOY_NAME];
    int64_t n_tokens, n_merges;
};

/* The character of the byte-level alphabet for a byte: the printable ones as they are, the rest from U+0100. */
static inline uint32_t toy_character(int byte)
{
    int shifted = 0;
    for (int b = 0; b <= byte; b++) {
        bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        if (b == byte)
            return (uint32_t)(printable ? b : 0x100 + shifted);
        shifted += !printable;
    }
    return 0;
}

static inline int32_t toy_add_token(struct toy *toy, const char *name, int kind)
{
    int64_t id = toy->n_tokens++;
    snprintf(toy->token_names[id], TOY_NAME, "%s", name);
    toy->tokens[id] = (struct text){toy->token_names[id], strlen(name)};
    toy->kinds[id] = kind;
    return (int32_t)id;
}

/* "left right" in the alphabet; the result becomes a token, when it is not one yet. */
static inline void toy_add_merge(struct toy *toy, const char *merge)
{
    char result[TOY_NAME] = "";
    const char *space = strchr(merge, ' ');
    snprintf(result, sizeof result, "%.*s%s", (int)(space - merge), merge, space + 1);
    bool known = false;
    for (int64_t i = 0; i < toy->n_tokens && !known; i++)
        known = text_equals(toy->tokens[i], result);
    if (!known)
        toy_add_token(toy, result, 1);
    int64_t at = toy->n_merges++;
    snprintf(toy->merge_names[at], TOY_NAME, "%s", merge);
    toy->merges[at] = (struct text){toy->merge_names[at], strlen(merge)};
}

static inline struct value *toy_value(struct toy *toy, const char *key)
{
    for (int64_t i = 0; i < toy->bundle.n_values; i++)
        if (strcmp(toy->values[i].key, key) == 0)
            return &toy->values[i];
    struct value *value = &toy->values[toy->bundle.n_values++];
    *value = (struct value){.key = key, .count = 1};
    return value;
}

static inline void toy_set_string(struct toy *toy, const char *key, const char *string)
{
    struct value *value = toy_value(toy, key);
    value->kind = VALUE_STRING;
    value->string = (struct text){string, strlen(string)};
}

static inline void toy_set_int(struct toy *toy, const char *key, int64_t integer)
{
    struct value *value = toy_value(toy, key);
    value->kind = VALUE_INT;
    value->integer = integer;
}

/* The bytes 0 .. 255 as tokens of those ids; toy_finish after tokens and merges have been added. */
static inline void toy_start(struct toy *toy, const char *pre)
{
    memset(toy, 0, sizeof *toy);
    toy->bundle.path = "toy.gguf";
    toy->bundle.values = toy->values;
    for (int byte = 0; byte < 256; byte++) {
        char name[5] = "";
        utf8_encode(toy_character(byte), name);
        toy_add_token(toy, name, 1);
    }
    toy_set_string(toy, "tokenizer.ggml.model", "gpt2");
    toy_set_string(toy, "tokenizer.ggml.pre", pre);
}

static inline void toy_finish(struct toy *toy)
{
    struct value *value = toy_value(toy, "tokenizer.ggml.tokens");
    value->kind = VALUE_STRINGS;
    value->count = toy->n_tokens;
    value->strings = toy->tokens;
    value = toy_value(toy, "tokenizer.ggml.token_type");
    value->kind = VALUE_INTS;
    value->count = toy->n_tokens;
    value->integers = toy->kinds;
    value = toy_value(toy, "tokenizer.ggml.merges");
    value->kind = VALUE_STRINGS;
    value->count = toy->n_merges;
    value->strings = toy->merges;
}

#endif
