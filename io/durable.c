#include "io/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct durable {
    char *path;
    char *temporary;
    FILE *stream;
};

struct durable_lock {
    int fd;
};

static int out_of_memory(struct error *err, const char *path)
{
    return error_set(err, ERROR_RESOURCE, "%s: out of memory", path);
}

/* The directory that holds `path`; the caller frees it, NULL when there is no memory. */
static char *parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* Make a change of names in the directory of `path` safe. */
static int parent_sync(const char *path, struct error *err)
{
    char *directory = parent_of(path);
    if (!directory)
        return out_of_memory(err, path);
    int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    /* Some file systems cannot fsync a directory and say EINVAL: there is nothing more to be done there. */
    int status = fd < 0 || (fsync(fd) != 0 && errno != EINVAL) ? -1 : 0;
    if (status)
        error_errno(err, "cannot fsync the directory %s", directory);
    if (fd >= 0)
        close(fd);
    free(directory);
    return status;
}

struct durable *durable_create(const char *path, struct error *err)
{
    struct durable *file = calloc(1, sizeof *file);
    if (!file || !(file->path = strdup(path)) ||
        asprintf(&file->temporary, "%s.%ld.tmp", path, (long)getpid()) < 0) {
        if (file)
            free(file->path);
        free(file);
        out_of_memory(err, path);
        return NULL;
    }
    file->stream = fopen(file->temporary, "we");
    if (!file->stream) {
        error_errno(err, "cannot write %s", path);
        free(file->temporary);
        free(file->path);
        free(file);
        return NULL;
    }
    return file;
}

FILE *durable_stream(struct durable *file)
{
    return file->stream;
}

void durable_abandon(struct durable *file)
{
    if (!file)
        return;
    if (file->stream)
        fclose(file->stream);
    unlink(file->temporary);
    free(file->temporary);
    free(file->path);
    free(file);
}

/* Everything written is on the disk, and the stream is closed. */
static int stream_finish(struct durable *file, struct error *err)
{
    FILE *stream = file->stream;
    if (fflush(stream) != 0)
        return error_errno(err, "cannot write %s", file->path);
    if (ferror(stream))
        return error_set(err, ERROR_IO, "cannot write %s: an earlier write failed", file->path);
    if (fsync(fileno(stream)) != 0)
        return error_errno(err, "cannot fsync %s", file->path);
    file->stream = NULL;
    if (fclose(stream) != 0)
        return error_errno(err, "cannot close %s", file->path);
    return 0;
}

int durable_publish(struct durable *file, struct error *err)
{
    int status = stream_finish(file, err);
    if (!status && rename(file->temporary, file->path) != 0)
        status = error_errno(err, "cannot rename %s to %s", file->temporary, file->path);
    if (!status)
        status = parent_sync(file->path, err);
    durable_abandon(file);
    return status;
}

int durable_write(const char *path, const void *bytes, size_t size, struct error *err)
{
    struct durable *file = durable_create(path, err);
    if (!file)
        return -1;
    if (size && fwrite(bytes, 1, size, file->stream) != size) {
        error_errno(err, "cannot write %s", path);
        durable_abandon(file);
        return -1;
    }
    return durable_publish(file, err);
}

int durable_remove(const char *path, struct error *err)
{
    if (unlink(path) == 0)
        return parent_sync(path, err);
    return errno == ENOENT ? 0 : error_errno(err, "cannot remove %s", path);
}

static int make_directory(const char *path, struct error *err)
{
    if (mkdir(path, 0777) == 0)
        return parent_sync(path, err);
    int cause = errno;
    struct stat status;
    if (stat(path, &status) == 0) {
        if (S_ISDIR(status.st_mode))
            return 0;
        cause = ENOTDIR;
    }
    errno = cause;
    return error_errno(err, "cannot make the directory %s", path);
}

int durable_make_directories(const char *path, struct error *err)
{
    char *whole = strdup(path);
    if (!whole)
        return out_of_memory(err, path);
    int status = 0;
    for (char *slash = strchr(whole + 1, '/'); slash && !status; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        status = make_directory(whole, err);
        *slash = '/';
    }
    if (!status)
        status = make_directory(whole, err);
    free(whole);
    return status;
}

static int lock_refused(int fd, const char *directory, struct error *err)
{
    if (errno == ENOSYS || errno == ENOTSUP || errno == ENOLCK)
        return error_errno(err, "cannot lock %s/.lock: its file system needs flock (Lustre: mount -o flock)",
                           directory);
    if (errno != EWOULDBLOCK)
        return error_errno(err, "cannot lock %s/.lock", directory);
    char holder[128];
    ssize_t n = pread(fd, holder, sizeof holder - 1, 0);
    holder[n > 0 ? n : 0] = '\0';
    holder[strcspn(holder, "\n")] = '\0';
    return error_set(err, ERROR_USAGE, "%s is in use by another run (%s)", directory,
                     *holder ? holder : "which has not said who it is");
}

/* For the message of whoever comes second; a lock without it is still a lock. */
static void lock_sign(int fd)
{
    char host[64] = "?", line[128];
    gethostname(host, sizeof host - 1);
    int n = snprintf(line, sizeof line, "process %ld on %s\n", (long)getpid(), host);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, line, (size_t)n, 0) != n)
        errno = 0;
}

struct durable_lock *durable_lock_take(const char *directory, struct error *err)
{
    struct durable_lock *lock = malloc(sizeof *lock);
    char *path = NULL;
    if (!lock || asprintf(&path, "%s/.lock", directory) < 0) {
        free(lock);
        out_of_memory(err, directory);
        return NULL;
    }
    lock->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (lock->fd < 0) {
        error_errno(err, "cannot open %s", path);
        goto fail;
    }
    if (flock(lock->fd, LOCK_EX | LOCK_NB) != 0) {
        lock_refused(lock->fd, directory, err);
        goto fail;
    }
    lock_sign(lock->fd);
    free(path);
    return lock;
fail:
    free(path);
    if (lock->fd >= 0)
        close(lock->fd);
    free(lock);
    return NULL;
}

void durable_lock_release(struct durable_lock *lock)
{
    /* The file stays: were it removed, one who has just opened it would lock a file that nobody else can see. */
    if (lock)
        close(lock->fd);
    free(lock);
}

static int read_all(int fd, const char *path, struct durable_bytes *out, struct error *err)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return error_errno(err, "cannot read %s", path);
    if (!S_ISREG(status.st_mode))
        return error_set(err, ERROR_INPUT, "%s is not a regular file", path);
    size_t size = (size_t)status.st_size, done = 0;
    unsigned char *bytes = malloc(size ? size : 1);
    if (!bytes)
        return error_set(err, ERROR_RESOURCE, "%s: out of memory for its %zu bytes", path, size);
    while (done < size) {
        ssize_t n = read(fd, bytes + done, size - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            int failed = n < 0 ? error_errno(err, "cannot read %s", path)
                               : error_set(err, ERROR_IO, "%s grew shorter while it was read", path);
            free(bytes);
            return failed;
        }
        done += (size_t)n;
    }
    *out = (struct durable_bytes){bytes, size};
    return 0;
}

int durable_read(const char *path, struct durable_bytes *out, struct error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return error_errno(err, "cannot open %s", path);
    int status = read_all(fd, path, out, err);
    close(fd);
    return status;
}
