/* The files that TLS needs. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "http/internal.h"

enum { PEM_MAX = 1 << 20 };

char *pem_read(const char *path, char why[256])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    char *text = fd >= 0 ? malloc(PEM_MAX + 1) : NULL;
    size_t n = 0;
    ssize_t got = text ? 1 : -1;
    while (got > 0 && n < PEM_MAX) {
        got = read(fd, text + n, PEM_MAX - n);
        n += got > 0 ? (size_t)got : 0;
    }
    if (got == 0 && n > 0) {
        text[n] = '\0';
    } else {
        snprintf(why, 256, "cannot read %s: %s", path,
                 got < 0  ? strerror(errno)
                 : n == 0 ? "it is empty"
                          : "it is larger than 1 MiB");
        free(text);
        text = NULL;
    }
    if (fd >= 0)
        close(fd);
    return text;
}
