/*
 * "wait" takes 20 ms and is answered with "ok", as "ok" is at once. The other inputs do harm:
 *
 *   "segv", "stack", "memory"  write to nowhere, recurse without end, allocate without end
 *   "loop"                     computes for ever, whoever waits or does not
 *   "launcher"                 ends the container's first thread, and no other; answered with "ok"
 *   "large"                    is answered with 6 MiB
 *   "fork"                     makes 400 processes that stay for a minute; answered with how many there are
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "nightcore.h"

#define STEP (16u << 20)
#define STEPS_MAX 256
#define FORKS 400
#define LARGE (6u << 20)

uint32_t nightcore_abi_version(void) { return NIGHTCORE_ABI_VERSION; }

static int is(const char* word, const uint8_t* input, size_t length) {
    return strlen(word) == length && memcmp(word, input, length) == 0;
}

static int stack(volatile int depth) {
    volatile char frame[4096];
    if (depth < 0) return 0;
    frame[0] = (char)depth;
    return stack(depth + 1) + frame[0];
}

/* Ends by the container's limit, or by itself where there is none. */
static void memory(void) {
    int step;
    for (step = 0; step < STEPS_MAX; step++) {
        char* block = malloc(STEP);
        if (block == NULL) break;
        memset(block, 1, STEP);
    }
    abort();
}

static void end_thread(int signal) {
    (void)signal;
    syscall(SYS_exit, 0);
}

static void launcher(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = end_thread;
    sigaction(SIGUSR1, &action, NULL);
    syscall(SYS_tgkill, getpid(), getpid(), SIGUSR1);
}

static int forks(void) {
    int count;
    for (count = 0; count < FORKS; count++) {
        pid_t child = fork();
        if (child < 0) break;
        if (child == 0) {
            alarm(60);
            for (;;) pause();
        }
    }
    return count;
}

int nightcore_call(void* worker, nightcore_call_context* context, const nightcore_host* host,
                   const uint8_t* input, size_t input_length) {
    char text[16] = "ok";
    (void)worker;
    if (is("wait", input, input_length)) {
        struct timespec time = {0, 20000000};
        nanosleep(&time, NULL);
    }
    if (is("segv", input, input_length)) *(volatile char*)16 = 1;
    if (is("stack", input, input_length)) return stack(0);
    if (is("memory", input, input_length)) memory();
    if (is("loop", input, input_length)) for (;;) {}
    if (is("launcher", input, input_length)) launcher();
    if (is("large", input, input_length)) {
        uint8_t* answer = host->output_reserve(context, LARGE);
        if (answer == NULL) return 1;
        memset(answer, 'x', LARGE);
        return NIGHTCORE_OK;
    }
    if (is("fork", input, input_length)) snprintf(text, sizeof text, "%d", forks());
    return host->output_append(context, (const uint8_t*)text, strlen(text));
}
