#include "pipeline/task.h"

const struct task task_score = {
    .job = JOB_SCORE,
};
