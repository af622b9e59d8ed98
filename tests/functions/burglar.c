/*
 * Tries what a container has no business to do. The input is an attempt and what it is aimed at, as in
 * "read /etc/shadow"; the answer begins with 0 where it succeeded, else with the error's number, and
 * goes on with what was found. Interface v1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "v1.h"

static char found[1 << 16];

static int result(long value) { return value < 0 ? errno : 0; }

static int read_file(const char* path) {
    int fd = open(path, O_RDONLY);
    ssize_t size;
    if (fd < 0) return errno;
    size = read(fd, found, sizeof found - 1);
    close(fd);
    found[size < 0 ? 0 : size] = 0;
    return result(size);
}

static int list(const char* path) {
    DIR* directory = opendir(path);
    struct dirent* entry;
    if (directory == NULL) return errno;
    while ((entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.') continue;
        strncat(found, entry->d_name, sizeof found - strlen(found) - 2);
        strcat(found, " ");
    }
    closedir(directory);
    return 0;
}

/* The files of all descriptors but the directory's own. */
static int descriptors(void) {
    int fd;
    for (fd = 0; fd < 4096; fd++) {
        char path[64], target[256];
        ssize_t size;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        size = readlink(path, target, sizeof target - 1);
        if (size < 0) continue;
        target[size] = 0;
        strncat(found, target, sizeof found - strlen(found) - 2);
        strcat(found, "\n");
    }
    return 0;
}

static int create(const char* path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    if (fd < 0) return errno;
    close(fd);
    return 0;
}

static int connect_to(int port) {
    struct sockaddr_in address;
    int error, fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0) return errno;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    error = result(connect(fd, (struct sockaddr*)&address, sizeof address));
    close(fd);
    return error;
}

static int raise_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return errno;
    limit.rlim_max++;
    return result(setrlimit(RLIMIT_NOFILE, &limit));
}

/* A child that lives as long as it is let. */
static int leave_child(void) {
    pid_t child = fork();
    if (child == 0) {
        for (;;) pause();
    }
    return result(child);
}

static int gain_capabilities(void) {
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct data[2];
    memset(data, 0, sizeof data);
    data[0].permitted = data[0].effective = 1u << CAP_SYS_ADMIN;
    return result(syscall(SYS_capset, &header, data));
}

static int call(const char* name) {
    char space[256] = {0};
#define TRY(text, attempt) if (strcmp(name, text) == 0) return result(attempt)
    TRY("io_uring_setup", syscall(SYS_io_uring_setup, 1, space));
    TRY("io_setup", syscall(SYS_io_setup, 1, space));
    TRY("ptrace", ptrace(PTRACE_SEIZE, getppid(), NULL, NULL));
    TRY("mount", mount("tmpfs", "/tmp", "tmpfs", 0, NULL));
    TRY("umount", umount2("/tmp", MNT_DETACH));
    TRY("chroot", chroot("/tmp"));
    TRY("unshare", unshare(CLONE_NEWUTS));
    TRY("unshare_user", unshare(CLONE_NEWUSER));
    TRY("clone_user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    TRY("clone3", syscall(SYS_clone3, space, 64));
    TRY("setns", setns(0, 0));
    TRY("bpf", syscall(SYS_bpf, 0, space, sizeof space));
    TRY("keyctl", syscall(SYS_keyctl, 0, -3, 1));
    TRY("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -3));
    TRY("perf_event_open", syscall(SYS_perf_event_open, space, 0, -1, -1, 0));
    TRY("userfaultfd", syscall(SYS_userfaultfd, 1));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    TRY("init_module", syscall(SYS_init_module, space, sizeof space, ""));
    TRY("open_by_handle_at", syscall(SYS_open_by_handle_at, AT_FDCWD, space, 0));
    TRY("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), 0, 0, 0, 0, 0));
    TRY("pidfd_getfd", syscall(SYS_pidfd_getfd, 0, 0, 0));
    TRY("personality", personality(PER_LINUX32));
    TRY("outlive", prctl(PR_SET_PDEATHSIG, 0));
    TRY("setuid", setuid(0));
    TRY("setuid_same", syscall(SYS_setuid, getuid()));
    TRY("setgroups", syscall(SYS_setgroups, 1, space));
    TRY("nice", setpriority(PRIO_PROCESS, 0, -20));
    TRY("sched_setaffinity", sched_setaffinity(0, sizeof space, (cpu_set_t*)memset(space, 255, 128)));
    TRY("raw_socket", syscall(SYS_socket, AF_INET, SOCK_RAW, IPPROTO_ICMP));
#undef TRY
    return EINVAL;
}

static int attempt(const char* what, const char* aim) {
    if (strcmp(what, "read") == 0) return read_file(aim);
    if (strcmp(what, "list") == 0) return list(aim);
    if (strcmp(what, "descriptors") == 0) return descriptors();
    if (strcmp(what, "create") == 0) return create(aim);
    if (strcmp(what, "connect") == 0) return connect_to(atoi(aim));
    if (strcmp(what, "kill") == 0) return result(kill(atoi(aim), 0));
    if (strcmp(what, "limit") == 0) return raise_limit();
    if (strcmp(what, "capabilities") == 0) return gain_capabilities();
    if (strcmp(what, "child") == 0) return leave_child();
    if (strcmp(what, "run") == 0) return system(aim) == 0 ? 0 : ENOEXEC;
    if (strcmp(what, "abort") == 0) abort();
    if (strcmp(what, "raise") == 0) return result(raise(atoi(aim)));
    if (strcmp(what, "call") == 0) return call(aim);
    return EINVAL;
}

int faas_init(void) { return 0; }

int faas_func_call(void* worker_handle, const char* input, size_t input_length) {
    const worker* self = worker_handle;
    char text[512], *aim;
    int error;
    if (input_length >= sizeof text) return 1;
    memcpy(text, input, input_length);
    text[input_length] = 0;
    aim = strchr(text, ' ');
    if (aim != NULL) *aim++ = 0;
    found[0] = 0;
    error = attempt(text, aim == NULL ? "" : aim);
    snprintf(text, sizeof text, "%d ", error);
    self->append_output(self->context, text, strlen(text));
    self->append_output(self->context, found, strlen(found));
    return 0;
}
