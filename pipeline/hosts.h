/* The machines of a run, by name. */
#ifndef LONGHAUL_PIPELINE_HOSTS_H
#define LONGHAUL_PIPELINE_HOSTS_H

/* Bytes of a name with its end. */
enum { HOST_NAME = 65 };

/* names [n], as ranks have them, each once, in order and separated by ','; to be freed. NULL: no memory. */
char *hosts_join(const char (*names)[HOST_NAME], int n);

#endif
