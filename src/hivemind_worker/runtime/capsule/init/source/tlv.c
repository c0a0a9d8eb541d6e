/* Numbers and fields in payloads, little endian; and the SPEC read from them. */
#include "init.h"

#include <stdlib.h>
#include <string.h>

void put16(uint8_t *at, uint16_t value) {
    for (int i = 0; i < 2; i++) at[i] = (uint8_t)(value >> (8 * i));
}
void put32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (8 * i));
}
void put64(uint8_t *at, uint64_t value) {
    for (int i = 0; i < 8; i++) at[i] = (uint8_t)(value >> (8 * i));
}
uint16_t get16(const uint8_t *at) { return (uint16_t)(at[0] | at[1] << 8); }
uint32_t get32(const uint8_t *at) {
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}
uint64_t get64(const uint8_t *at) { return get32(at) | (uint64_t)get32(at + 4) << 32; }

void tlv_bytes(struct writer *to, uint16_t tag, const void *data, size_t length) {
    put16(to->at, tag);
    put32(to->at + 2, (uint32_t)length);
    if (length) memcpy(to->at + 6, data, length);
    to->at += 6 + length;
}

void tlv_number(struct writer *to, uint16_t tag, uint64_t value) {
    uint8_t bytes[8];
    put64(bytes, value);
    tlv_bytes(to, tag, bytes, 8);
}

struct field {
    uint16_t tag;
    uint32_t length;
    const uint8_t *data;
};

/* Takes the next field off; false at the end or when it is cut off (then *at is not the end). */
static bool next_field(const uint8_t **at, const uint8_t *end, struct field *field) {
    if (end - *at < 6) return false;
    field->tag = get16(*at);
    field->length = get32(*at + 2);
    if (field->length > (size_t)(end - *at - 6)) return false;
    field->data = *at + 6;
    *at = field->data + field->length;
    return true;
}

#define MAX_MS (1ull << 40) /* 35 years: keeps every sum of times far from overflow */
#define MAX_TAIL (64ull << 20)
#define MAX_WINDOW (256ull << 20)

static uint64_t at_most(uint64_t value, uint64_t limit) { return value < limit ? value : limit; }

static const char *number_field(const struct field *field) {
    uint64_t *const targets[] = {
        [5] = &spec.stdin_stream, [6] = &spec.timeout_ms, [7] = &spec.grace_ms, [8] = &spec.output_head,
        [9] = &spec.output_tail, [10] = &spec.results_bytes, [11] = &spec.results_apparent, [12] = &spec.results_count,
        [13] = &spec.results_depth, [14] = &spec.results_ms, [15] = &spec.window, [16] = &spec.stop_on_disconnect,
        [18] = &spec.expect_uid, [20] = &spec.proxy_port,
    };
    if (field->tag >= sizeof targets / sizeof *targets || !targets[field->tag]) return NULL; /* of a later version */
    if (field->length != 8) return "a number that has not 8 bytes";
    *targets[field->tag] = get64(field->data);
    return NULL;
}

const char *read_spec(const uint8_t *payload, size_t length) {
    const uint8_t *at = payload, *end = payload + length;
    size_t count[21] = {0}, text = 0;
    struct field field;
    while (next_field(&at, end, &field)) {
        if (field.tag < 21) count[field.tag]++;
        text += field.length + 1;
    }
    if (at != end) return "a field that is cut off";
    if (!count[1]) return "no argv";
    char *arena = allocate(text + 1);
    spec.argv = allocate((count[1] + 1) * sizeof *spec.argv);
    spec.env = allocate((count[2] + 1) * sizeof *spec.env);
    spec.rlimits = allocate((count[19] + 1) * sizeof *spec.rlimits);
    spec.expect_uid = UINT64_MAX;
    spec.window = 4u << 20;
    spec.cwd = "";
    spec.workspace = "/workspace";
    size_t argc = 0, envc = 0;
    for (at = payload; next_field(&at, end, &field);) {
        char *copy = arena;
        memcpy(copy, field.data, field.length);
        copy[field.length] = 0;
        arena += field.length + 1;
        if (field.tag <= 4 && memchr(copy, 0, field.length)) return "a NUL byte in a string";
        const char *problem = NULL;
        switch (field.tag) {
        case 1: spec.argv[argc++] = copy; break;
        case 2:
            if (!strchr(copy, '=')) return "an environment entry without '='";
            spec.env[envc++] = copy;
            break;
        case 3: spec.cwd = copy; break;
        case 4: spec.workspace = copy; break;
        case 17:
            if (field.length > MAX_KEY) return "a resume key that is too long";
            memcpy(spec.key, field.data, field.length);
            spec.key_length = field.length;
            break;
        case 19: {
            if (field.length != 24) return "a resource limit that has not 24 bytes";
            struct rlimit_spec *limit = &spec.rlimits[spec.rlimit_count++];
            limit->resource = get64(field.data);
            limit->soft = get64(field.data + 8);
            limit->hard = get64(field.data + 16);
            break;
        }
        default: problem = number_field(&field);
        }
        if (problem) return problem;
    }
    spec.argv[argc] = spec.env[envc] = NULL;
    if (spec.proxy_port > 65535) return "a proxy port above 65535";
    if (spec.workspace[0] != '/') return "a workspace that is not absolute";
    spec.timeout_ms = at_most(spec.timeout_ms, MAX_MS);
    spec.grace_ms = at_most(spec.grace_ms, MAX_MS);
    spec.results_ms = at_most(spec.results_ms, MAX_MS);
    spec.output_tail = at_most(spec.output_tail, MAX_TAIL);
    spec.window = at_most(spec.window, MAX_WINDOW);
    spec.results_depth = at_most(spec.results_depth, MAX_DEPTH);
    return NULL;
}
