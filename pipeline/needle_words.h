/* The words that needle tasks make keys of ("quiet-harbor") and count. No word is a part of another, and so no key
 * of another key, so that an answer can be searched for each. */
#ifndef LONGHAUL_PIPELINE_NEEDLE_WORDS_H
#define LONGHAUL_PIPELINE_NEEDLE_WORDS_H

enum { NEEDLE_ADJECTIVES = 504, NEEDLE_NOUNS = 849 };

extern const char *const needle_adjectives[NEEDLE_ADJECTIVES];
extern const char *const needle_nouns[NEEDLE_NOUNS];

#endif
