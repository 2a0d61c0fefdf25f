#include "base/words.h"

#include <stdio.h>
#include <string.h>

int64_t words_find(const char *words, const char *word, size_t length)
{
    for (int64_t i = 0; *words; i++) {
        const size_t n = strcspn(words, "|");
        if (n == length && memcmp(words, word, n) == 0)
            return i;
        words += n + (words[n] == '|');
    }
    return -1;
}

void words_copy(const char *words, int64_t index, char *out, size_t size)
{
    for (int64_t i = 0; i < index; i++)
        words += strcspn(words, "|") + 1;
    snprintf(out, size, "%.*s", (int)strcspn(words, "|"), words);
}
