/* Time that only goes forward. */
#ifndef LONGHAUL_BASE_CLOCK_H
#define LONGHAUL_BASE_CLOCK_H

/* Seconds since some moment in the past, the same for all threads of a process. */
double clock_seconds(void);

#endif
