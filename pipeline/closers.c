#include "pipeline/closers.h"

#include <stdbool.h>
#include <string.h>

size_t closers_before(const char *text, size_t length)
{
    static const char *const closers[] = {"\"",     "'",      ")",      "]",      "\u201d",
                                          "\u2019", "\u00bb", "\u300d", "\u300f", "\uff09"};
    size_t i = 0;
    while (i < sizeof closers / sizeof *closers) {
        const size_t n = strlen(closers[i]);
        const bool found = length >= n && memcmp(text + length - n, closers[i], n) == 0;
        length -= found ? n : 0;
        i = found ? 0 : i + 1;
    }
    return length;
}
