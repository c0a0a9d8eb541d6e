/* The names in a directory in byte order; of a huge directory the smallest ones, so that memory stays bounded. */
#include "init.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *sorting; /* qsort passes no context */

static int compare(const void *a, const void *b) {
    return strcmp(sorting + *(const uint32_t *)a, sorting + *(const uint32_t *)b);
}

static void sort(struct listing *listing) {
    sorting = listing->text;
    if (listing->count) qsort(listing->names, listing->count, sizeof *listing->names, compare);
}

/* Keeps the smallest names, at most `most` of them in at most `bytes`, and packs them. */
static void cut(struct listing *listing, size_t most, size_t bytes) {
    sort(listing);
    char *packed = allocate(listing->text_size);
    size_t used = 0, kept = 0;
    for (; kept < listing->count && kept < most; kept++) {
        const char *name = listing->text + listing->names[kept];
        size_t length = strlen(name) + 1;
        if (used + length > bytes) break;
        memcpy(packed + used, name, length);
        listing->names[kept] = (uint32_t)used;
        used += length;
    }
    if (kept < listing->count) { /* whatever is not smaller than the first one left out can never get in */
        listing->cut = true;
        strncpy(listing->bound, listing->text + listing->names[kept], MAX_PART);
    }
    free(listing->text);
    listing->text = packed;
    listing->text_used = used;
    listing->count = kept;
}

static void *grown(void *memory, size_t size) {
    memory = realloc(memory, size);
    if (!memory) panic("out of memory");
    return memory;
}

static void add(struct listing *listing, const char *name, size_t length) {
    if (listing->text_used + length > listing->text_size) {
        listing->text_size = 2 * listing->text_size + length + 4096;
        listing->text = grown(listing->text, listing->text_size);
    }
    if (listing->count == listing->names_size) {
        listing->names_size = 2 * listing->names_size + 256;
        listing->names = grown(listing->names, listing->names_size * sizeof *listing->names);
    }
    memcpy(listing->text + listing->text_used, name, length);
    listing->names[listing->count++] = (uint32_t)listing->text_used;
    listing->text_used += length;
}

bool listing_read(struct listing *listing, int directory, size_t most, size_t bytes) {
    DIR *open_directory = fdopendir(directory);
    if (!open_directory) {
        close(directory);
        return false;
    }
    for (struct dirent *entry; errno = 0, (entry = readdir(open_directory));) {
        const char *name = entry->d_name;
        if (!strcmp(name, ".") || !strcmp(name, "..")) continue;
        if (listing->cut && strcmp(name, listing->bound) >= 0) continue;
        add(listing, name, strlen(name) + 1);
        if (listing->count >= 2 * most || listing->text_used >= 2 * bytes) cut(listing, most, bytes);
    }
    int error = errno;
    closedir(open_directory);
    cut(listing, most, bytes);
    errno = error;
    return !error;
}

void listing_free(struct listing *listing) {
    free(listing->text);
    free(listing->names);
    memset(listing, 0, sizeof *listing);
}
