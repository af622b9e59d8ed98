/*
 * Prints what its input says, a verb and perhaps a text, and answers with nothing. Interface v2.
 *
 *   out, err TEXT   a line on standard output or standard error
 *   printf TEXT     a line by the C library, which is not told to flush
 *   log TEXT        by the runtime, so that it tells its request
 *   part TEXT       half a line on standard error; the rest never comes
 *   long COUNT      a line of so many bytes
 *   bytes           a line of every byte there is but the newline
 *   lines COUNT     so many numbered lines
 *   flood           lines without end, from a thread of its own
 *   close           closes standard output, then says so on standard error
 *   orphan TEXT     a child lives on with the container's output: its pid, the text, and it aborts
 *   die TEXT        half a line, then it aborts
 */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "nightcore.h"

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

static void put(int fd, const char* text, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, text, length);
        if (written < 0) abort();
        text += written;
        length -= (size_t)written;
    }
}

static void line(int fd, const char* text) {
    put(fd, text, strlen(text));
    put(fd, "\n", 1);
}

static void* flood(void* unused) {
    static char block[1 << 16];
    size_t at;
    for (at = 0; at < sizeof block; at++) block[at] = "a flood of lines without an end\n"[at % 32];
    while (write(1, block, sizeof block) > 0) continue;
    return unused;
}

static void numbered(long count) {
    char text[32];
    long number;
    for (number = 0; number < count; number++) {
        snprintf(text, sizeof text, "line %ld", number);
        line(1, text);
    }
}

static void of_bytes(void) {
    int byte;
    for (byte = 0; byte < 256; byte++) {
        char one = (char)byte;
        if (one != '\n') put(1, &one, 1);
    }
    put(1, "\n", 1);
}

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    char text[256] = {0};
    char* rest;
    pthread_t thread;
    (void)worker;
    memcpy(text, input, input_length < sizeof text ? input_length : sizeof text - 1);
    rest = strchr(text, ' ');
    if (rest == NULL) {
        rest = text + strlen(text);
    } else {
        *rest++ = 0;
    }
    if (strcmp(text, "out") == 0) line(1, rest);
    if (strcmp(text, "err") == 0) line(2, rest);
    if (strcmp(text, "printf") == 0) printf("%s\n", rest);
    if (strcmp(text, "log") == 0) return host->log(context, rest, strlen(rest));
    if (strcmp(text, "part") == 0 || strcmp(text, "die") == 0) put(2, rest, strlen(rest));
    if (strcmp(text, "long") == 0) {
        long count;
        for (count = strtol(rest, NULL, 10); count > 0; count--) put(1, "x", 1);
        put(1, "\n", 1);
    }
    if (strcmp(text, "bytes") == 0) of_bytes();
    if (strcmp(text, "lines") == 0) numbered(strtol(rest, NULL, 10));
    if (strcmp(text, "flood") == 0) return pthread_create(&thread, NULL, flood, NULL);
    if (strcmp(text, "close") == 0) {
        close(1);
        line(2, "closed");
    }
    if (strcmp(text, "orphan") == 0) {
        char told[32];
        pid_t child = fork();
        if (child == 0) {
            for (;;) pause();
        }
        snprintf(told, sizeof told, "child %ld", (long)child);
        line(2, told);
        line(2, rest);
        abort();
    }
    if (strcmp(text, "die") == 0) abort();
    return NIGHTCORE_OK;
}
