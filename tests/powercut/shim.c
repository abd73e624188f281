/*
 * Logs, in order and with their data, all calls that change the files under one directory, and fails one of
 * them on demand. Preloaded (LD_PRELOAD) into a program; idle until that program calls powercut_begin.
 *
 * A call and its record are made under one lock, so the log has the order in which the kernel saw the calls.
 * The memory-mapped "-shm" file of SQLite is no part of it: it is made again from the log after a crash.
 *
 * A record is a `struct record`, the first name and the data; tests/powercut/oplog.py reads it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, SYNC, UNLINK, RENAME, LINK, MARK };
enum { FAIL_NOTHING, FAIL_WRITE, FAIL_SYNC };
enum { CREATED = 1, FAILED = 2 };
enum { MAX_FD = 4096 };

struct record {
    uint8_t kind;
    uint8_t flags;
    uint16_t name_length;
    uint32_t handle; /* one for each time a file was opened, from 1 */
    uint64_t offset; /* of the data; the new size for TRUNCATE */
    uint32_t data_length;
    uint32_t thread;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char watched[PATH_MAX]; /* the directory, without a slash at its end; empty: idle */
static size_t watched_length;
static int log_fd = -1;
static uint32_t handles[MAX_FD]; /* by file descriptor; 0: not watched */
static int owed[MAX_FD];         /* by file descriptor: the errno that its next fsync gives */
static uint32_t last_handle;

static int fail_kind, fail_errno, fail_forever, fail_fired;
static long fail_at; /* counts down to 0 */

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) {
        fprintf(stderr, "powercut: no %s in the C library\n", name);
        abort();
    }
    return found;
}

static void put(const void *data, size_t length)
{
    static ssize_t (*write_)(int, const void *, size_t);
    if (!write_)
        write_ = REAL(write);
    for (size_t done = 0; done < length;) {
        ssize_t wrote = write_(log_fd, (const char *)data + done, length - done);
        if (wrote <= 0) {
            fprintf(stderr, "powercut: the log cannot be written: %s\n", strerror(errno));
            abort();
        }
        done += (size_t)wrote;
    }
}

static void append(int kind, int flags, uint32_t handle, uint64_t offset, const char *name, const void *data,
                   size_t length)
{
    int kept = errno;
    struct record record = {(uint8_t)kind, (uint8_t)flags,    (uint16_t)strlen(name), handle, offset,
                            (uint32_t)length, (uint32_t)gettid()};
    put(&record, sizeof record);
    put(name, strlen(name));
    put(data, length);
    errno = kept;
}

/* The path within the watched directory ("" for that itself), or NULL for one elsewhere. */
static const char *inside(const char *path)
{
    if (!watched_length || strncmp(path, watched, watched_length))
        return NULL;
    if (path[watched_length] == '/')
        return path + watched_length + 1;
    return path[watched_length] ? NULL : path + watched_length;
}

static uint32_t handle_of(int fd)
{
    return watched_length && fd >= 0 && fd < MAX_FD ? handles[fd] : 0;
}

/* Whether this call is the one to fail, or comes after it. */
static int fails(int kind)
{
    if (kind != fail_kind)
        return 0;
    if (fail_at > 0 && --fail_at == 0) {
        fail_fired = 1;
        return 1;
    }
    return fail_fired && fail_forever;
}

/* ---- For the program ---- */

/* Watch `directory` (an absolute path without links) from now on, and log to `log`. */
void powercut_begin(const char *directory, const char *log)
{
    pthread_mutex_lock(&lock);
    if (log_fd >= 0)
        REAL(close)(log_fd);
    log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (log_fd < 0 || strlen(directory) >= sizeof watched) {
        fprintf(stderr, "powercut: cannot log to %s\n", log);
        abort();
    }
    memset(handles, 0, sizeof handles);
    memset(owed, 0, sizeof owed);
    last_handle = 0;
    strcpy(watched, directory);
    watched_length = strlen(watched);
    pthread_mutex_unlock(&lock);
}

/* Watch nothing any more. */
void powercut_end(void)
{
    pthread_mutex_lock(&lock);
    watched_length = 0;
    fail_kind = FAIL_NOTHING;
    pthread_mutex_unlock(&lock);
}

/* Put what the program says into the log: it is certain of all that stands before. */
void powercut_mark(const char *data, size_t length)
{
    pthread_mutex_lock(&lock);
    if (watched_length)
        append(MARK, 0, 0, 0, "", data, length);
    pthread_mutex_unlock(&lock);
}

/* Fail the `at`-th call of a kind from now on (FAIL_WRITE: also ftruncate), and all after it if `forever`. */
void powercut_fail(int kind, long at, int error, int forever)
{
    pthread_mutex_lock(&lock);
    fail_kind = kind;
    fail_at = at;
    fail_errno = error;
    fail_forever = forever;
    fail_fired = 0;
    pthread_mutex_unlock(&lock);
}

/* Whether the call to fail has come. */
int powercut_failed(void)
{
    return fail_fired;
}

/* ---- In place of the C library's ---- */

static int opened(const char *path, int flags, mode_t mode)
{
    const char *name = inside(path);
    if (!name)
        return REAL(openat)(AT_FDCWD, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat before;
    int created = (flags & O_CREAT) && stat(path, &before) != 0;
    int fd = REAL(openat)(AT_FDCWD, path, flags, mode);
    if (fd >= MAX_FD) {
        fprintf(stderr, "powercut: too many open files\n");
        abort();
    }
    if (fd >= 0) {
        handles[fd] = ++last_handle;
        owed[fd] = 0;
        append(OPEN, created ? CREATED : 0, last_handle, 0, name, "", 0);
        if ((flags & O_TRUNC) && !created)
            append(TRUNCATE, 0, last_handle, 0, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE(flags, mode)                                                                                    \
    mode_t mode = 0;                                                                                         \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                   \
        va_list rest;                                                                                        \
        va_start(rest, flags);                                                                               \
        mode = va_arg(rest, mode_t);                                                                         \
        va_end(rest);                                                                                        \
    }

int open(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    MODE(flags, mode)
    return opened(path, flags, mode);
}

int openat(int directory, const char *path, int flags, ...)
{
    MODE(flags, mode)
    if (path[0] == '/')
        return opened(path, flags, mode);
    return REAL(openat)(directory, path, flags, mode);
}

int openat64(int directory, const char *path, int flags, ...)
{
    MODE(flags, mode)
    if (path[0] == '/')
        return opened(path, flags, mode);
    return REAL(openat)(directory, path, flags, mode);
}

int close(int fd)
{
    if (!handle_of(fd))
        return REAL(close)(fd);
    pthread_mutex_lock(&lock);
    handles[fd] = 0;
    int result = REAL(close)(fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static ssize_t written(int fd, const void *data, size_t length, off_t offset, int positioned)
{
    pthread_mutex_lock(&lock);
    ssize_t result = -1;
    if (fails(FAIL_WRITE)) {
        append(WRITE, FAILED, handles[fd], 0, "", "", 0);
        errno = fail_errno;
    } else {
        if (!positioned)
            offset = lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
        result = positioned ? REAL(pwrite)(fd, data, length, offset) : REAL(write)(fd, data, length);
        if (result > 0)
            append(WRITE, 0, handles[fd], (uint64_t)offset, "", data, (size_t)result);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

ssize_t write(int fd, const void *data, size_t length)
{
    return handle_of(fd) ? written(fd, data, length, 0, 0) : REAL(write)(fd, data, length);
}

ssize_t pwrite(int fd, const void *data, size_t length, off_t offset)
{
    return handle_of(fd) ? written(fd, data, length, offset, 1) : REAL(pwrite)(fd, data, length, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset)
{
    return pwrite(fd, data, length, offset);
}

int ftruncate(int fd, off_t size)
{
    if (!handle_of(fd))
        return REAL(ftruncate)(fd, size);
    pthread_mutex_lock(&lock);
    int result = -1;
    if (fails(FAIL_WRITE)) {
        append(TRUNCATE, FAILED, handles[fd], 0, "", "", 0);
        errno = fail_errno;
    } else if ((result = REAL(ftruncate)(fd, size)) == 0) {
        append(TRUNCATE, 0, handles[fd], (uint64_t)size, "", "", 0);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate64(int fd, off64_t size)
{
    return ftruncate(fd, size);
}

/* Linux tells of what could not be written through every descriptor of the file that is open, once. */
static void owe(int failed_fd)
{
    struct stat file, other;
    fstat(failed_fd, &file);
    for (int fd = 0; fd < MAX_FD; fd++)
        if (handles[fd] && fstat(fd, &other) == 0 && other.st_ino == file.st_ino)
            owed[fd] = fail_errno;
}

/* Nothing is waited for: what a real disk would hold is the replayer's business. */
static int synced(int fd)
{
    pthread_mutex_lock(&lock);
    if (fails(FAIL_SYNC))
        owe(fd);
    int error = owed[fd];
    owed[fd] = 0;
    append(SYNC, error ? FAILED : 0, handles[fd], 0, "", "", 0);
    if (error)
        errno = error;
    pthread_mutex_unlock(&lock);
    return error ? -1 : 0;
}

int fsync(int fd)
{
    return handle_of(fd) ? synced(fd) : REAL(fsync)(fd);
}

int fdatasync(int fd)
{
    return handle_of(fd) ? synced(fd) : REAL(fdatasync)(fd);
}

static int unlinked(int directory, const char *path, int flags)
{
    const char *name = inside(path);
    if (!name)
        return REAL(unlinkat)(directory, path, flags);
    pthread_mutex_lock(&lock);
    int result = REAL(unlinkat)(directory, path, flags);
    if (result == 0)
        append(UNLINK, 0, 0, 0, name, "", 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int unlink(const char *path)
{
    return unlinked(AT_FDCWD, path, 0);
}

int unlinkat(int directory, const char *path, int flags)
{
    return unlinked(directory, path, flags);
}

/* Both paths lie in the watched directory, or neither does. */
static int both(int kind, const char *from, const char *to, int result)
{
    const char *old = inside(from), *new = inside(to);
    if (result == 0 && old && new)
        append(kind, 0, 0, 0, old, new, strlen(new));
    return result;
}

int rename(const char *from, const char *to)
{
    pthread_mutex_lock(&lock);
    int result = both(RENAME, from, to, REAL(rename)(from, to));
    pthread_mutex_unlock(&lock);
    return result;
}

int renameat(int old_directory, const char *from, int new_directory, const char *to)
{
    pthread_mutex_lock(&lock);
    int result = both(RENAME, from, to, REAL(renameat)(old_directory, from, new_directory, to));
    pthread_mutex_unlock(&lock);
    return result;
}

int link(const char *from, const char *to)
{
    pthread_mutex_lock(&lock);
    int result = both(LINK, from, to, REAL(link)(from, to));
    pthread_mutex_unlock(&lock);
    return result;
}

int linkat(int old_directory, const char *from, int new_directory, const char *to, int flags)
{
    pthread_mutex_lock(&lock);
    int result = both(LINK, from, to, REAL(linkat)(old_directory, from, new_directory, to, flags));
    pthread_mutex_unlock(&lock);
    return result;
}
