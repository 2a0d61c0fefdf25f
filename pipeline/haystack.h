/* A haystack: a text that facts are hidden in, cut into words and sentences.
 *
 * Its white space is made single spaces. A sentence begins behind a full stop, question or exclamation mark (and
 * closing quotes or brackets) at the end of a word; or after 64 words, in texts without sentences. The text has no
 * end: behind its last word comes its first again.
 */
#ifndef LONGHAUL_PIPELINE_HAYSTACK_H
#define LONGHAUL_PIPELINE_HAYSTACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct haystack {
    char *text; /* [words[n_words]] */
    int64_t n_words, n_sentences;
    size_t *words;      /* [n_words + 1] where each begins; one behind the last end */
    int64_t *sentences; /* [n_sentences] the word that each begins with */
};

/* ERROR_INPUT for a text without words, ERROR_RESOURCE. */
struct haystack *haystack_create(const char *text, size_t length, struct error *err);
void haystack_free(struct haystack *haystack);

/* Words first .. first + n, with single spaces between them; first >= 0 may lie beyond the end. */
void haystack_write(const struct haystack *haystack, int64_t first, int64_t n, FILE *out);

/* Sentences in the n words from the beginning of sentence `sentence` on, a last one that is cut counted too. */
int64_t haystack_sentences(const struct haystack *haystack, int64_t sentence, int64_t n);

/* The words, of the n from sentence `sentence` on, before the one that so many sentences end with; n at most. */
int64_t haystack_words_before(const struct haystack *haystack, int64_t sentence, int64_t sentences, int64_t n);

#endif
