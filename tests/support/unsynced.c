/* Remembers what a process changed on one file system since the last sync, so that a test can undo it: a power cut.
 *
 * LD_PRELOAD library for tests. UNSYNCED_ROOTS names folders, parted by colons, each a mount of its own: files of these
 * devices are tracked, by device and inode. UNSYNCED_LOG names a folder for one log per process, on another file system. Before each change
 * a record with the old content is appended; a sync appends a record that makes all earlier ones of its file void.
 * UNSYNCED_BOOT_ID names a file that is read in the place of the kernel's boot id. `unsynced.py` reads the logs of killed processes and rolls the files back. Not tracked: memory maps (SQLite's -shm,
 * rebuilt after a crash anyway), links, folders made or removed, permissions.
 *
 * A record: "<kind> <nanoseconds> <file> <folder> <offset> <old size> <n bytes of name> <n bytes>\n" name bytes
 *   W write, T truncate, S sync, C file made, U unlinked; R a name is taken by a renamed file, M its old name, X undo
 *   neither: the rename failed
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define MAX_DEVICES 8
static dev_t devices[MAX_DEVICES];
static int log_fd = -1, enabled = 0;  /* enabled: how many devices */
static pid_t log_pid;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void before_fork(void) { pthread_mutex_lock(&lock); }
static void after_fork(void) { pthread_mutex_unlock(&lock); }

__attribute__((constructor)) static void begin(void) {
    const char *roots = getenv("UNSYNCED_ROOTS");
    struct stat st;
    if (!roots || !getenv("UNSYNCED_LOG")) return;
    char copy[PATH_MAX], *rest = NULL;
    snprintf(copy, sizeof copy, "%s", roots);
    for (char *root = strtok_r(copy, ":", &rest); root && enabled < MAX_DEVICES; root = strtok_r(NULL, ":", &rest))
        if (stat(root, &st) == 0) devices[enabled++] = st.st_dev;
    if (enabled) pthread_atfork(before_fork, after_fork, after_fork);
}

static int on_device(const struct stat *st) {
    for (int i = 0; i < enabled; i++) if (devices[i] == st->st_dev) return 1;
    return 0;
}

/* One number for a file of any of these devices: a tmpfs counts its inodes from 1. */
static unsigned long long key(const struct stat *st) { return ((unsigned long long)st->st_dev << 40) + st->st_ino; }

static int tracked(int fd, struct stat *st) {
    return enabled && fd >= 0 && fd != log_fd && fstat(fd, st) == 0 && on_device(st) && S_ISREG(st->st_mode);
}

static void put(const void *data, size_t n) {
    const char *at = data;
    while (n > 0) {
        ssize_t did = syscall(SYS_write, log_fd, at, n);
        if (did < 0 && errno == EINTR) continue;
        if (did <= 0) { static const char bad[] = "unsynced: the log cannot be written\n"; syscall(SYS_write, 2, bad, sizeof bad - 1); abort(); }
        at += did;
        n -= (size_t)did;
    }
}

static void record(char kind, unsigned long long inode, unsigned long long folder, off_t offset, off_t old, const char *name, const void *bytes, size_t n) {
    if (log_fd < 0 || log_pid != getpid()) {  /* a forked child has a log of its own */
        char path[PATH_MAX];
        log_pid = getpid();
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        snprintf(path, sizeof path, "%s/%d-%lld", getenv("UNSYNCED_LOG"), (int)log_pid, (long long)t.tv_sec * 1000000000LL + t.tv_nsec);
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
        if (log_fd >= 0 && log_fd < 200) {  /* out of the way of programs that close or pass on low numbers */
            int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 500);
            if (high >= 0) { syscall(SYS_close, log_fd); log_fd = high; }
        }
    }
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    char head[256];
    size_t named = name ? strlen(name) : 0;
    int m = snprintf(head, sizeof head, "%c %lld %llu %llu %lld %lld %zu %zu\n", kind, (long long)t.tv_sec * 1000000000LL + t.tv_nsec,
                     inode, folder, (long long)offset, (long long)old, named, n);
    put(head, (size_t)m);
    put(name, named);
    put(bytes, n);
}

/* The old bytes of a range, read through a descriptor of our own: the caller's may be write-only. */
static void save_range(char kind, int fd, const struct stat *st, off_t from, off_t to) {
    if (to > st->st_size) to = st->st_size;
    size_t n = to > from ? (size_t)(to - from) : 0;
    char *old = NULL;
    if (n) {
        char path[64];
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
        old = malloc(n);
        ssize_t got = own >= 0 && old ? syscall(SYS_pread64, own, old, n, from) : -1;
        if (own >= 0) syscall(SYS_close, own);
        n = got > 0 ? (size_t)got : 0;
    }
    record(kind, key(st), 0, from, st->st_size, NULL, old, n);
    free(old);
}

static void before_write(int fd, off_t offset, size_t n) {
    struct stat st;
    if (!tracked(fd, &st)) return;
    if (offset < 0) {
        int flags = fcntl(fd, F_GETFL);
        offset = (flags & O_APPEND) ? st.st_size : lseek(fd, 0, SEEK_CUR);
    }
    int saved = errno;
    save_range('W', fd, &st, offset, offset + (off_t)n);
    errno = saved;
}

/* The change and its record are one step to other threads; nothing else is locked, a write to a pipe may block. */
#define GUARDED(fd, before, call) do { struct stat st_; if (!tracked(fd, &st_)) return call; pthread_mutex_lock(&lock); before; \
    __typeof__(call) result = call; int failure = errno; pthread_mutex_unlock(&lock); errno = failure; return result; } while (0)
static size_t total(const struct iovec *v, int n) { size_t sum = 0; for (int i = 0; i < n; i++) sum += v[i].iov_len; return sum; }

ssize_t write(int fd, const void *b, size_t n) { REAL(write); GUARDED(fd, before_write(fd, -1, n), real(fd, b, n)); }
ssize_t pwrite(int fd, const void *b, size_t n, off_t o) { REAL(pwrite); GUARDED(fd, before_write(fd, o, n), real(fd, b, n, o)); }
ssize_t pwrite64(int fd, const void *b, size_t n, off_t o) { REAL(pwrite64); GUARDED(fd, before_write(fd, o, n), real(fd, b, n, o)); }
ssize_t writev(int fd, const struct iovec *v, int n) { REAL(writev); GUARDED(fd, before_write(fd, -1, total(v, n)), real(fd, v, n)); }
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t o) { REAL(pwritev); GUARDED(fd, before_write(fd, o, total(v, n)), real(fd, v, n, o)); }
ssize_t sendfile(int out, int in, off_t *o, size_t n) { REAL(sendfile); GUARDED(out, before_write(out, -1, n), real(out, in, o, n)); }
ssize_t copy_file_range(int in, off_t *i, int out, off_t *o, size_t n, unsigned f) {
    REAL(copy_file_range);
    GUARDED(out, before_write(out, o ? *o : -1, n), real(in, i, out, o, n, f));
}

static void before_cut(int fd, off_t length) {
    struct stat st;
    if (tracked(fd, &st)) save_range('T', fd, &st, length < st.st_size ? length : st.st_size, st.st_size);
}
int ftruncate(int fd, off_t n) { REAL(ftruncate); GUARDED(fd, before_cut(fd, n), real(fd, n)); }
int ftruncate64(int fd, off_t n) { REAL(ftruncate64); GUARDED(fd, before_cut(fd, n), real(fd, n)); }
int fallocate(int fd, int m, off_t o, off_t n) { REAL(fallocate); GUARDED(fd, before_cut(fd, LONG_MAX), real(fd, m, o, n)); }
int fallocate64(int fd, int m, off_t o, off_t n) { REAL(fallocate64); GUARDED(fd, before_cut(fd, LONG_MAX), real(fd, m, o, n)); }
int posix_fallocate(int fd, off_t o, off_t n) { REAL(posix_fallocate); GUARDED(fd, before_cut(fd, LONG_MAX), real(fd, o, n)); }
int posix_fallocate64(int fd, off_t o, off_t n) { REAL(posix_fallocate64); GUARDED(fd, before_cut(fd, LONG_MAX), real(fd, o, n)); }

static int syncing(int fd, int (*real)(int)) {
    struct stat st;
    if (!enabled || fd == log_fd || fstat(fd, &st) != 0 || !on_device(&st)) return real(fd);
    pthread_mutex_lock(&lock);
    int result = real(fd), failure = errno;
    if (result == 0) record('S', key(&st), 0, 0, st.st_size, NULL, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = failure;
    return result;
}
int fsync(int fd) { REAL(fsync); return syncing(fd, real); }
int fdatasync(int fd) { REAL(fdatasync); return syncing(fd, real); }

/* The folder of a path, and the last part of its name. */
static int folder_of(int at, const char *path, struct stat *st, const char **name) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    *name = slash ? slash + 1 : path;
    size_t n = slash ? (size_t)(slash - path) : 0;
    if (n >= sizeof folder) return 0;
    memcpy(folder, path, n);
    folder[n] = 0;
    if (slash && !n) strcpy(folder, "/");
    return fstatat(at, n || slash ? folder : ".", st, 0) == 0 && on_device(st);
}

/* A name is about to lose its file, or another file takes it: remember the name and the content. */
static void before_loss(char kind, int at, const char *path, unsigned long long taker) {
    struct stat st, folder;
    const char *name;
    if (!enabled || !folder_of(at, path, &folder, &name)) return;
    if (fstatat(at, path, &st, AT_SYMLINK_NOFOLLOW) != 0) { if (kind == 'R') record('R', taker, key(&folder), -1, 0, name, NULL, 0); return; }
    if (!S_ISREG(st.st_mode)) return;
    int own = (int)syscall(SYS_openat, at, path, O_RDONLY | O_CLOEXEC);
    char *old = malloc((size_t)st.st_size + 1);
    ssize_t got = own >= 0 && old ? syscall(SYS_pread64, own, old, (size_t)st.st_size, 0) : -1;
    if (own >= 0) syscall(SYS_close, own);
    record(kind, kind == 'R' ? taker : key(&st), key(&folder), st.st_mode & 07777, got > 0 ? got : 0, name, old, got > 0 ? (size_t)got : 0);
    free(old);
}

static int do_unlink(int at, const char *path, int flags) {
    if (enabled) pthread_mutex_lock(&lock);
    if (!(flags & AT_REMOVEDIR)) before_loss('U', at, path, 0);
    int result = (int)syscall(SYS_unlinkat, at, path, flags);
    int failure = errno;
    if (enabled) pthread_mutex_unlock(&lock);
    errno = failure;
    return result;
}
int unlink(const char *path) { return do_unlink(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return do_unlink(at, path, flags); }
int remove(const char *path) { int r = do_unlink(AT_FDCWD, path, 0); return r && errno == EISDIR ? do_unlink(AT_FDCWD, path, AT_REMOVEDIR) : r; }

static int do_rename(int from_at, const char *from, int to_at, const char *to, unsigned flags) {
    struct stat st, folder;
    const char *name;
    if (enabled) pthread_mutex_lock(&lock);
    int ours = enabled && fstatat(from_at, from, &st, AT_SYMLINK_NOFOLLOW) == 0 && on_device(&st) && S_ISREG(st.st_mode);
    if (ours) {
        before_loss('R', to_at, to, key(&st));             /* undone: the target has its old content again … */
        if (folder_of(from_at, from, &folder, &name)) record('M', key(&st), key(&folder), 0, 0, name, NULL, 0);  /* … and the file its old name */
    }
    int result = (int)syscall(SYS_renameat2, from_at, from, to_at, to, flags);
    int failure = errno;
    if (ours && result != 0) record('X', key(&st), 0, 0, 0, NULL, NULL, 0);  /* it failed: void both */
    if (enabled) pthread_mutex_unlock(&lock);
    errno = failure;
    return result;
}
int rename(const char *from, const char *to) { return do_rename(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int f, const char *from, int t, const char *to) { return do_rename(f, from, t, to, 0); }
int renameat2(int f, const char *from, int t, const char *to, unsigned flags) { return do_rename(f, from, t, to, flags); }

static int do_open(int at, const char *path, int flags, mode_t mode) {
    const char *boot_id = getenv("UNSYNCED_BOOT_ID");
    if (boot_id && path && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) path = boot_id;
    if (!enabled || !(flags & (O_CREAT | O_TRUNC))) return (int)syscall(SYS_openat, at, path, flags, mode);
    pthread_mutex_lock(&lock);
    struct stat st, folder;
    const char *name;
    int existed = fstatat(at, path, &st, 0) == 0;
    if (existed && (flags & O_TRUNC) && on_device(&st) && S_ISREG(st.st_mode)) {
        int own = (int)syscall(SYS_openat, at, path, O_RDONLY | O_CLOEXEC);
        if (own >= 0) { save_range('T', own, &st, 0, st.st_size); syscall(SYS_close, own); }
    }
    int fd = (int)syscall(SYS_openat, at, path, flags, mode);
    int failure = errno;
    if (fd >= 0 && !existed && fstat(fd, &st) == 0 && on_device(&st) && S_ISREG(st.st_mode) && folder_of(at, path, &folder, &name))
        record('C', key(&st), key(&folder), 0, 0, name, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = failure;
    return fd;
}

#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list v; va_start(v, flags); mode = va_arg(v, mode_t); va_end(v); }
int open(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return do_open(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return do_open(at, path, flags | O_LARGEFILE, mode); }
int creat(const char *path, mode_t mode) { return do_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
