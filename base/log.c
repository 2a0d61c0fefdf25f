#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/line.h"

enum { HEAD_BYTES = 80, TEXT_BYTES = 2000 };

static struct {
    int fd; /* -1: none is open */
    int rank;
    enum log_level level;
} the_log = {.fd = -1, .rank = 0, .level = LOG_LEVEL_WARN};

static const char *const level_names[] = {"error", "warn", "info", "debug"};

int log_level_parse(const char *name, enum log_level *out, struct error *err)
{
    for (int i = LOG_LEVEL_ERROR; i <= LOG_LEVEL_DEBUG; i++) {
        if (strcmp(name, level_names[i]) == 0) {
            *out = (enum log_level)i;
            return 0;
        }
    }
    return error_set(err, ERROR_USAGE, "log level '%s' is none of error, warn, info, debug", name);
}

static int take_file(int fd, const char *path, int rank, enum log_level level, struct error *err)
{
    if (fd < 0)
        return error_errno(err, "opening the log %s", path);
    the_log.fd = fd;
    the_log.rank = rank;
    the_log.level = level;
    return 0;
}

int log_open(const char *path, int rank, enum log_level level, struct error *err)
{
    log_close();
    return take_file(open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666), path, rank, level, err);
}

int log_to_stderr(enum log_level level, struct error *err)
{
    log_close();
    return take_file(fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0), "stderr", 0, level, err);
}

void log_close(void)
{
    if (the_log.fd >= 0)
        close(the_log.fd);
    the_log.fd = -1;
    the_log.level = LOG_LEVEL_WARN;
}

/* "time rank level: " into head; returns its length. */
static size_t write_head(char head[HEAD_BYTES], enum log_level level)
{
    struct timespec now;
    struct tm utc;
    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &utc);
    size_t length = strftime(head, HEAD_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    int rest = snprintf(head + length, HEAD_BYTES - length, ".%03dZ rank %d %s: ", (int)(now.tv_nsec / 1000000),
                        the_log.rank, level_names[level]);
    return length + (size_t)rest;
}

/* A line in one call of write(2): with O_APPEND the lines of several writers do not mix. */
static int put(int fd, const char *line, size_t length)
{
    while (length > 0) {
        ssize_t n = write(fd, line, length);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        line += n;
        length -= (size_t)n;
    }
    return 0;
}

void log_write(enum log_level level, const char *format, ...)
{
    if (level > the_log.level)
        return;
    int saved_errno = errno;
    char line[HEAD_BYTES + TEXT_BYTES + 2];
    size_t head = write_head(line, level);
    va_list arguments;
    va_start(arguments, format);
    int wanted = vsnprintf(line + head, TEXT_BYTES + 1, format, arguments);
    va_end(arguments);
    size_t length = head + (wanted < 0 ? 0 : (size_t)(wanted < TEXT_BYTES ? wanted : TEXT_BYTES));
    if (wanted > TEXT_BYTES)
        memcpy(line + length - 3, "...", 3);
    line_clean(line + head, length - head);
    line[length++] = '\n';
    int written = the_log.fd < 0 ? -1 : put(the_log.fd, line, length);
    /* Nobody is left to tell when stderr too refuses. */
    if (written < 0 && level <= LOG_LEVEL_WARN)
        (void)put(STDERR_FILENO, line, length);
    errno = saved_errno;
}
