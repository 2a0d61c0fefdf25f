/* Marks: the special tokens, known by their names, between which chat formats put turns. A model's file may have
 * them as control tokens or as user-defined ones; text never becomes one either way, or a document could end its
 * turn. */
#ifndef LONGHAUL_MODEL_MARKS_H
#define LONGHAUL_MODEL_MARKS_H

#include "base/text.h"

/* The name of the mark that the words begin with, or NULL. */
const char *mark_at(struct text words);

#endif
