/* Results as text for other programs and for people: JSON lines, Markdown, CSV.
 *
 * jsonl: one object a document in the shape of an OpenAI batch answer (id, custom_id, response or error; a score
 * has no response), and what longhaul knows besides under "longhaul". md: a section a document. csv (scores only):
 * "doc,position,token,logprob,top1", a line a predicted token. Documents come in the order of the corpus. Text
 * that is not UTF-8 shows U+FFFD. docs/formats.md describes the fields.
 */
#ifndef LONGHAUL_IO_EXPORT_H
#define LONGHAUL_IO_EXPORT_H

#include <stdio.h>

#include "base/error.h"

enum export_format {
    EXPORT_AUTO, /* jsonl for summaries, csv for scores */
    EXPORT_JSONL,
    EXPORT_MD,
    EXPORT_CSV
};

/* Write the results in `directory` to `out`, and flush it. ERROR_USAGE when the format does not fit what was run
 * there, ERROR_IO when `out` takes no more, and the errors of results_load. */
int export_write(const char *directory, enum export_format format, FILE *out, struct error *err);

#endif
