/* Results: walks workspace/results without following any link, sends regular files, says what it skipped and why. */
#include "init.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum skipped { SYMLINK = 1, FIFO, SOCKET, DEVICE, UNREADABLE, BYTES, COUNT, DEPTH, TIME, NAME };
enum { CAPPED_BYTES = 1, CAPPED_COUNT = 2, CAPPED_DEPTH = 4, CAPPED_TIME = 8 };
enum { NAMED_SKIPS = 1000 };

struct level {
    int fd;
    size_t path_length; /* of this directory, in `path` */
    struct listing listing;
};

static struct level levels[MAX_DEPTH + 1];
static size_t depth; /* how many levels are open */
static char path[MAX_PATH + 1];
static size_t path_length;
static uint64_t entries_left, name_bytes_left, files, files_ended, content_ended, skips, capped, spent_us;
static const char *trouble;
static int trouble_errno;

static int file = -1; /* the one being sent */
static struct stat file_stat;
static bool file_sparse;
static uint64_t file_at, file_content;
static uint64_t bytes_left, apparent_left;

static void small(uint8_t type, int first_byte, const char *text, size_t length) {
    struct frame *frame = frame_new(type, length + 1);
    uint8_t *payload = frame_payload(frame);
    size_t at = 0;
    if (first_byte >= 0) payload[at++] = (uint8_t)first_byte;
    if (length) memcpy(payload + at, text, length);
    frame_put(frame, at + length);
}

static void cap_for(enum skipped reason) {
    if (reason == BYTES) capped |= CAPPED_BYTES;
    if (reason == COUNT) capped |= CAPPED_COUNT;
    if (reason == DEPTH) capped |= CAPPED_DEPTH;
    if (reason == TIME) capped |= CAPPED_TIME;
}

static void skip(enum skipped reason) {
    skips++;
    cap_for(reason);
    if (skips <= NAMED_SKIPS && path_length) small(RESULT_SKIPPED, (int)reason, path, path_length);
}

static void close_level(void) {
    struct level *level = &levels[--depth];
    name_bytes_left += level->listing.text_used;
    if (level->listing.cut) capped |= CAPPED_COUNT;
    listing_free(&level->listing);
    close(level->fd);
}

static void close_all(void) {
    while (depth) close_level();
}

static void open_level(int fd) {
    struct level *level = &levels[depth++];
    level->fd = fd;
    level->path_length = path_length;
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy < 0 || !listing_read(&level->listing, copy, (size_t)entries_left + 1, (size_t)name_bytes_left)) {
        trouble_errno = errno;
        if (depth == 1) trouble = "cannot read the results directory";
        else skip(UNREADABLE);
    }
    name_bytes_left -= level->listing.text_used < name_bytes_left ? level->listing.text_used : name_bytes_left;
}

void results_begin(void) {
    uint64_t count = spec.results_count < (1u << 30) ? spec.results_count : 1u << 30;
    entries_left = 4 * count + 1024; /* what is looked at, directories and skipped ones too */
    name_bytes_left = (1u << 20) + 24 * count;
    if (name_bytes_left > 64u << 20) name_bytes_left = 64u << 20;
    bytes_left = spec.results_bytes;
    apparent_left = spec.results_apparent;
    int fd = openat(workspace_fd, "results", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0) {
        open_level(fd);
    } else if (errno != ENOENT) { /* the task may remove it: then there are none */
        trouble = "cannot open the results directory";
        trouble_errno = errno;
    }
}

static void drop_file(enum skipped reason) {
    cap_for(reason);
    skips++;
    small(RESULT_DROPPED, (int)reason, NULL, 0);
    close(file);
    file = -1;
}

static void end_file(void) {
    struct stat now;
    if (fstat(file, &now) || now.st_size != file_stat.st_size || now.st_mtim.tv_sec != file_stat.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != file_stat.st_mtim.tv_nsec) {
        drop_file(UNREADABLE); /* someone outside still writes it: neither version is whole */
        return;
    }
    small(RESULT_END, -1, NULL, 0);
    files_ended++;
    content_ended += file_content;
    close(file);
    file = -1;
}

/* How many of the next bytes at file_at are data; moves file_at over a hole. 0: the file ends here. */
static uint64_t data_ahead(void) {
    uint64_t size = (uint64_t)file_stat.st_size;
    if (!file_sparse || file_at >= size) return size - file_at;
    off_t data = lseek(file, (off_t)file_at, SEEK_DATA);
    if (data < 0) {
        if (errno == ENXIO) file_at = size;
        else file_sparse = false; /* not known here: all of it is data */
        return size - file_at;
    }
    off_t hole = lseek(file, data, SEEK_HOLE);
    file_at = (uint64_t)data < size ? (uint64_t)data : size;
    uint64_t end = hole < 0 || (uint64_t)hole > size ? size : (uint64_t)hole;
    return end - file_at;
}

static void send_piece(void) {
    uint64_t ahead = data_ahead();
    if (!ahead) {
        end_file();
        return;
    }
    size_t most = ahead < PIECE ? (size_t)ahead : PIECE;
    struct frame *frame = frame_new(RESULT_DATA, 8 + most);
    ssize_t got = pread(file, frame_payload(frame) + 8, most, (off_t)file_at);
    if (got <= 0 || (uint64_t)got > bytes_left) {
        frame_discard(frame);
        drop_file(got > 0 ? BYTES : UNREADABLE);
        return;
    }
    put64(frame_payload(frame), file_at);
    frame_put(frame, 8 + (size_t)got);
    file_at += (uint64_t)got;
    file_content += (uint64_t)got;
    bytes_left -= (uint64_t)got;
    if (file_at == (uint64_t)file_stat.st_size) end_file();
}

/* Bytes of data in the file just opened, as far as it matters: stops counting beyond bytes_left. */
static uint64_t content_size(void) {
    uint64_t sum = 0;
    if (!file_sparse) return (uint64_t)file_stat.st_size;
    for (file_at = 0; sum <= bytes_left;) {
        uint64_t ahead = data_ahead();
        if (!ahead) break;
        sum += ahead;
        file_at += ahead;
    }
    file_at = 0;
    return sum;
}

static void begin_file(int directory, const char *name) {
    if (files >= spec.results_count) {
        skip(COUNT);
        close_all();
        return;
    }
    file = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    enum skipped reason = 0;
    if (file < 0 || fstat(file, &file_stat) || !S_ISREG(file_stat.st_mode)) reason = UNREADABLE;
    else if ((uint64_t)file_stat.st_size > apparent_left) reason = BYTES;
    if (!reason) {
        file_sparse = (uint64_t)file_stat.st_blocks * 512 < (uint64_t)file_stat.st_size;
        file_at = file_content = 0;
        if (content_size() > bytes_left) reason = BYTES;
    }
    if (reason) {
        skip(reason);
        if (file >= 0) close(file);
        file = -1;
        return;
    }
    files++;
    apparent_left -= (uint64_t)file_stat.st_size;
    struct frame *frame = frame_new(RESULT_BEGIN, 12 + path_length);
    put32(frame_payload(frame), file_stat.st_mode & 07777);
    put64(frame_payload(frame) + 4, (uint64_t)file_stat.st_size);
    memcpy(frame_payload(frame) + 12, path, path_length);
    frame_put(frame, 12 + path_length);
}

static void begin_directory(int directory, const char *name) {
    if (depth >= spec.results_depth || depth >= MAX_DEPTH) {
        skip(DEPTH);
        return;
    }
    int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) skip(UNREADABLE);
    else open_level(fd);
}

static void visit(struct level *level, const char *name) {
    size_t length = strlen(name), start = level->path_length;
    path_length = start;
    if (start + 1 + length > MAX_PATH) {
        skip(NAME);
        return;
    }
    if (start) path[start++] = '/';
    memcpy(path + start, name, length);
    path_length = start + length;
    struct stat found;
    if (fstatat(level->fd, name, &found, AT_SYMLINK_NOFOLLOW)) {
        skip(UNREADABLE);
        return;
    }
    switch (found.st_mode & S_IFMT) {
    case S_IFREG: begin_file(level->fd, name); return;
    case S_IFDIR: begin_directory(level->fd, name); return;
    case S_IFLNK: skip(SYMLINK); return;
    case S_IFIFO: skip(FIFO); return;
    case S_IFSOCK: skip(SOCKET); return;
    default: skip(DEVICE); return;
    }
}

static void say_done(void) {
    struct frame *frame = frame_new(DONE, 512);
    struct writer to = {frame_payload(frame)};
    char text[256] = "";
    if (trouble) {
        const char *reason = strerror(trouble_errno);
        size_t at = strlen(trouble), length = strlen(reason);
        memcpy(text, trouble, at);
        memcpy(text + at, ": ", 2);
        memcpy(text + at + 2, reason, length < 128 ? length : 128);
        text[at + 2 + (length < 128 ? length : 128)] = 0;
    }
    tlv_number(&to, 1, files_ended);
    tlv_number(&to, 2, content_ended);
    tlv_number(&to, 3, skips);
    tlv_number(&to, 4, capped);
    tlv_bytes(&to, 5, text, strlen(text));
    done_sequence = frame_put(frame, (size_t)(to.at - frame_payload(frame)));
    state = FINISHED;
}

static void work(void) {
    if (file >= 0) {
        send_piece();
        return;
    }
    if (!depth) {
        say_done();
        return;
    }
    struct level *level = &levels[depth - 1];
    if (level->listing.next >= level->listing.count) {
        close_level();
        return;
    }
    if (!entries_left--) {
        entries_left = 0;
        capped |= CAPPED_COUNT;
        close_all();
        return;
    }
    visit(level, level->listing.text + level->listing.names[level->listing.next++]);
}

bool results_step(void) {
    /* A piece of data, or several small things: enough to be worth the system calls around it. */
    uint64_t begun = now_us();
    for (int i = 0; i < 64 && state == COLLECTING && window_room(PIECE + MAX_PATH + 64); i++) {
        bool data = file >= 0;
        work();
        if (data) break;
    }
    spent_us += now_us() - begun;
    if (state == COLLECTING && spec.results_ms && spent_us / 1000 >= spec.results_ms && (depth || file >= 0)) {
        if (file >= 0) drop_file(TIME);
        capped |= CAPPED_TIME;
        close_all();
    }
    return state == COLLECTING && window_room(PIECE + MAX_PATH + 64);
}
