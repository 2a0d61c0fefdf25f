/* A task: what is asked of a document. One file per task.
 *
 * A generating task is a set of prompts, one for each role that a generation can have in a strategy. A prompt's
 * text stands before and after its material: the document's tokens, a chunk of them, or earlier answers. In the
 * texts {part} and {parts} become the chunk's number and the number of chunks; of a ROLE_REDUCE both are the
 * latter.
 */
#ifndef LONGHAUL_PIPELINE_TASK_H
#define LONGHAUL_PIPELINE_TASK_H

#include "pipeline/job.h"

enum prompt_role {
    ROLE_WHOLE,  /* the whole document                                        */
    ROLE_MAP,    /* one chunk of it                                           */
    ROLE_REDUCE, /* the answers to several neighbouring chunks                */
    ROLE_REFINE, /* the answer so far, then the next chunk                    */
    ROLE_COUNT
};

struct prompt {
    const char *before;  /* what the material is */
    const char *between; /* ROLE_REFINE: between the answer so far and the chunk */
    const char *after;   /* the instruction; a prompt file of the user's replaces it */
};

struct task {
    enum job_kind job;
    struct prompt prompts[ROLE_COUNT]; /* of a generating task */
};

extern const struct task task_summarize;
extern const struct task task_score;

#endif
