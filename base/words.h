/* A choice of words in one string: "auto|f32|bf16". */
#ifndef LONGHAUL_BASE_WORDS_H
#define LONGHAUL_BASE_WORDS_H

#include <stddef.h>
#include <stdint.h>

/* The index of the word [length] among `words`; -1: it is not there. */
int64_t words_find(const char *words, const char *word, size_t length);

/* out [size] = the word with that index, cut off where it is longer. */
void words_copy(const char *words, int64_t index, char *out, size_t size);

#endif
