#include "io/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 20 };

static void write_hex(const unsigned char *digest, unsigned length, char hex[DIGEST_HEX_BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (unsigned i = 0; i < length; i++) {
        hex[2 * i] = digits[digest[i] >> 4];
        hex[2 * i + 1] = digits[digest[i] & 15];
    }
    hex[2 * length] = '\0';
}

static int refused(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, "libcrypto does not compute SHA-256");
}

static int update_to_end(int fd, EVP_MD_CTX *context, unsigned char *buffer, size_t *length, struct error *err)
{
    *length = 0;
    for (;;) {
        ssize_t got = read(fd, buffer, READ_BYTES);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return error_errno(err, "reading it for its digest");
        if (got == 0)
            return 0;
        if (EVP_DigestUpdate(context, buffer, (size_t)got) != 1)
            return refused(err);
        *length += (size_t)got;
    }
}

int digest_descriptor(int fd, char hex[DIGEST_HEX_BYTES], size_t *length, struct error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_length = 0;
    int status = -1;
    unsigned char *buffer = malloc(READ_BYTES);
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    if (!buffer || !context)
        error_set(err, ERROR_RESOURCE, "no memory for its digest");
    else if (EVP_DigestInit_ex(context, EVP_sha256(), NULL) != 1)
        refused(err);
    else if (update_to_end(fd, context, buffer, length, err) == 0)
        status = EVP_DigestFinal_ex(context, digest, &digest_length) == 1 ? 0 : refused(err);
    EVP_MD_CTX_free(context);
    free(buffer);
    if (status == 0)
        write_hex(digest, digest_length, hex);
    return status;
}

int digest_file(const char *path, char hex[DIGEST_HEX_BYTES], struct error *err)
{
    size_t length;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        error_errno(err, "opening it for its digest");
        return error_wrap(err, "%s", path);
    }
    const int status = digest_descriptor(fd, hex, &length, err);
    close(fd);
    return status == 0 ? 0 : error_wrap(err, "%s", path);
}

int digest_bytes(const void *bytes, size_t length, char hex[DIGEST_HEX_BYTES], struct error *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned digest_length = 0;
    if (EVP_Digest(bytes, length, digest, &digest_length, EVP_sha256(), NULL) != 1)
        return refused(err);
    write_hex(digest, digest_length, hex);
    return 0;
}
