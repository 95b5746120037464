/* Logs what a process does to the files of one folder, for tests of what a power cut leaves.
 *
 * To be preloaded. WRITE_LOG names the log, WRITE_LOG_DIR the folder. A record: one line
 * "<kind> <name> <offset> <length>\n", followed by <length> bytes for a write. Kinds: w(rite),
 * t(runcate), s(ync), c(reate), u(nlink), d(irectory sync), r(ename; the data is the new name).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int log_fd = -1;
static const char *folder;

__attribute__((constructor)) static void begin(void) {
  const char *name = getenv("WRITE_LOG");
  folder = getenv("WRITE_LOG_DIR");
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, "open64");
  if (name && folder) log_fd = real(name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

/* The name below the folder; NULL for other files, "." for the folder itself. */
static const char *below(const char *path) {
  if (log_fd < 0 || !path) return NULL;
  size_t length = strlen(folder);
  if (strncmp(path, folder, length)) return NULL;
  if (!path[length]) return ".";
  return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *name_of(int fd, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, buffer, PATH_MAX - 1);
  if (length <= 0) return NULL;
  buffer[length] = 0;
  return below(buffer);
}

static void record(char kind, const char *name, long long offset, const void *data, size_t length) {
  char head[PATH_MAX + 64];
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  int size = snprintf(head, sizeof head, "%c %s %lld %zu\n", kind, name, offset, length);
  if (real(log_fd, head, size) != size || (length && real(log_fd, data, length) != (ssize_t)length))
    abort();
}

static int opened(const char *path, int flags, int mode, const char *symbol) {
  int (*real)(const char *, int, ...) = dlsym(RTLD_NEXT, symbol);
  const char *name = below(path);
  int isnew = name && (flags & O_CREAT) && access(path, F_OK);
  int fd = real(path, flags, mode);
  if (fd >= 0 && isnew) record('c', name, 0, NULL, 0);
  if (fd >= 0 && name && (flags & O_TRUNC)) record('t', name, 0, NULL, 0);
  return fd;
}

#define OPEN(function) \
  int function(const char *path, int flags, ...) { \
    va_list more; \
    va_start(more, flags); \
    int mode = flags & O_CREAT ? va_arg(more, int) : 0; \
    va_end(more); \
    return opened(path, flags, mode, #function); \
  }
OPEN(open)
OPEN(open64)

#define PWRITE(function, offset_type) \
  ssize_t function(int fd, const void *data, size_t length, offset_type offset) { \
    ssize_t (*real)(int, const void *, size_t, offset_type) = dlsym(RTLD_NEXT, #function); \
    char buffer[PATH_MAX]; \
    const char *name = name_of(fd, buffer); \
    ssize_t done = real(fd, data, length, offset); \
    if (name && done > 0) record('w', name, offset, data, done); \
    return done; \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t write(int fd, const void *data, size_t length) {
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  char buffer[PATH_MAX];
  const char *name = fd > 2 && fd != log_fd ? name_of(fd, buffer) : NULL;
  long long offset = name ? lseek(fd, 0, SEEK_CUR) : 0;
  ssize_t done = real(fd, data, length);
  if (name && done > 0) record('w', name, offset, data, done);
  return done;
}

#define TRUNCATE(function, length_type) \
  int function(int fd, length_type length) { \
    int (*real)(int, length_type) = dlsym(RTLD_NEXT, #function); \
    char buffer[PATH_MAX]; \
    const char *name = name_of(fd, buffer); \
    int done = real(fd, length); \
    if (name && !done) record('t', name, length, NULL, 0); \
    return done; \
  }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(function) \
  int function(int fd) { \
    int (*real)(int) = dlsym(RTLD_NEXT, #function); \
    char buffer[PATH_MAX]; \
    const char *name = name_of(fd, buffer); \
    int done = real(fd); \
    if (name && !done) record(strcmp(name, ".") ? 's' : 'd', name, 0, NULL, 0); \
    return done; \
  }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
  int (*real)(const char *) = dlsym(RTLD_NEXT, "unlink");
  int done = real(path);
  const char *name = below(path);
  if (name && !done) record('u', name, 0, NULL, 0);
  return done;
}

int rename(const char *from, const char *to) {
  int (*real)(const char *, const char *) = dlsym(RTLD_NEXT, "rename");
  int done = real(from, to);
  const char *old = below(from), *now = below(to);
  if (old && now && !done) record('r', old, 0, now, strlen(now));
  return done;
}
