/* What may stand between the end of a sentence and the space behind it: closing quotes and brackets. */
#ifndef LONGHAUL_PIPELINE_CLOSERS_H
#define LONGHAUL_PIPELINE_CLOSERS_H

#include <stddef.h>

/* The bytes of text [length] without the closing quotes and brackets, of Latin and CJK texts, that it ends in. */
size_t closers_before(const char *text, size_t length);

#endif
