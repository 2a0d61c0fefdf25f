#include "pipeline/haystack.h"

#include <stdlib.h>
#include <string.h>

#include "base/num.h"
#include "pipeline/closers.h"

/* Words after which a sentence begins whatever the punctuation. */
enum { LONGEST_SENTENCE = 64 };

static bool is_space(char c)
{
    return (unsigned char)c <= ' ';
}

static void count_words(const char *text, size_t length, int64_t *words, size_t *bytes)
{
    bool inside = false;
    *words = 0;
    *bytes = 1;
    for (size_t i = 0; i < length; i++) {
        const bool space = is_space(text[i]);
        *words += !space && !inside;
        *bytes += !space + (!space && !inside);
        inside = !space;
    }
}

static void copy_words(struct haystack *haystack, const char *text, size_t length)
{
    size_t at = 0;
    int64_t word = 0;
    for (size_t i = 0; i < length;) {
        if (is_space(text[i])) {
            i++;
            continue;
        }
        haystack->words[word++] = at;
        while (i < length && !is_space(text[i]))
            haystack->text[at++] = text[i++];
        haystack->text[at++] = ' ';
    }
    haystack->words[word] = at;
}

static bool ends_sentence(const char *word, size_t length)
{
    length = closers_before(word, length);
    return length > 0 && memchr(".!?", word[length - 1], 3) != NULL;
}

static void find_sentences(struct haystack *haystack)
{
    int64_t run = LONGEST_SENTENCE;
    for (int64_t w = 0; w < haystack->n_words; w++) {
        if (run >= LONGEST_SENTENCE) {
            haystack->sentences[haystack->n_sentences++] = w;
            run = 0;
        }
        const size_t length = haystack->words[w + 1] - 1 - haystack->words[w];
        run = ends_sentence(haystack->text + haystack->words[w], length) ? LONGEST_SENTENCE : run + 1;
    }
}

struct haystack *haystack_create(const char *text, size_t length, struct error *err)
{
    size_t bytes;
    struct haystack *haystack = calloc(1, sizeof *haystack);
    if (!haystack)
        goto no_memory;
    count_words(text, length, &haystack->n_words, &bytes);
    if (haystack->n_words == 0) {
        error_set(err, ERROR_INPUT, "the haystack has no words");
        goto fail;
    }
    haystack->text = malloc(bytes);
    haystack->words = malloc((size_t)(haystack->n_words + 1) * sizeof *haystack->words);
    haystack->sentences = malloc((size_t)haystack->n_words * sizeof *haystack->sentences);
    if (!haystack->text || !haystack->words || !haystack->sentences)
        goto no_memory;
    copy_words(haystack, text, length);
    find_sentences(haystack);
    return haystack;
no_memory:
    error_set(err, ERROR_RESOURCE, "no memory for a haystack of %zu bytes", length);
fail:
    haystack_free(haystack);
    return NULL;
}

void haystack_free(struct haystack *haystack)
{
    if (!haystack)
        return;
    free(haystack->text);
    free(haystack->words);
    free(haystack->sentences);
    free(haystack);
}

void haystack_write(const struct haystack *haystack, int64_t first, int64_t n, FILE *out)
{
    while (n > 0) {
        const int64_t begin = first % haystack->n_words;
        const int64_t part = i64_min(n, haystack->n_words - begin);
        const size_t from = haystack->words[begin], to = haystack->words[begin + part] - 1;
        fwrite(haystack->text + from, 1, to - from, out);
        first += part;
        n -= part;
        if (n > 0)
            fputc(' ', out);
    }
}

/* Words from the beginning of sentence `sentence` to that of the sentence `sentences` later. */
static int64_t words_of(const struct haystack *haystack, int64_t sentence, int64_t sentences)
{
    const int64_t end = sentence + sentences;
    return end / haystack->n_sentences * haystack->n_words + haystack->sentences[end % haystack->n_sentences] -
           haystack->sentences[sentence];
}

int64_t haystack_sentences(const struct haystack *haystack, int64_t sentence, int64_t n)
{
    int64_t low = 0, high = n; /* no sentence is shorter than a word */
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (words_of(haystack, sentence, middle) < n)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

int64_t haystack_words_before(const struct haystack *haystack, int64_t sentence, int64_t sentences, int64_t n)
{
    return i64_min(n, words_of(haystack, sentence, sentences));
}
