/* full: every token attends to every earlier one, and nothing is given up. */
#include "attention/policy.h"

static const struct policy_parameter parameters[] = {{0}};

const struct policy policy_full = {
    .name = "full",
    .purpose = "every earlier token",
    .parameters = parameters,
    .near = NEAR_ALL,
};
