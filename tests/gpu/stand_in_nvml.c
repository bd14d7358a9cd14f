/* A libnvidia-ml.so.1 for a machine without a GPU. Every process that has /dev/nvidia0 open holds 1000 MiB.
   With a number in /run/gpu-proof-linger, the memory stays in use for so many milliseconds after the last of them. */
#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct memory { unsigned long long total, free, used; };

static int opens_device(const char *pid) {
    char folder[300], link[600], target[300];
    snprintf(folder, sizeof folder, "/proc/%s/fd", pid);
    DIR *files = opendir(folder);
    if (!files) return 0;
    int found = 0;
    for (struct dirent *file; !found && (file = readdir(files));) {
        snprintf(link, sizeof link, "%s/%s", folder, file->d_name);
        ssize_t length = readlink(link, target, sizeof target - 1);
        if (length < 0) continue;
        target[length] = 0;
        found = !strcmp(target, "/dev/nvidia0");
    }
    closedir(files);
    return found;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

static unsigned long long used(void) {
    static unsigned long long last;
    static double seen;
    unsigned long long count = 0;
    DIR *processes = opendir("/proc");
    for (struct dirent *process; processes && (process = readdir(processes));)
        if (isdigit(process->d_name[0])) count += opens_device(process->d_name);
    if (processes) closedir(processes);
    double linger = 0;
    FILE *file = fopen("/run/gpu-proof-linger", "r");
    if (file) { if (fscanf(file, "%lf", &linger) != 1) linger = 0; fclose(file); }
    if (count >= last || now() - seen > linger) { last = count; seen = now(); }
    return last * (1000ull << 20);
}

int nvmlInitWithFlags(unsigned flags) { (void)flags; return 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int result) { (void)result; return "stand-in"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)1; return index ? 2 : 0; }
int nvmlDeviceGetName(void *device, char *name, unsigned length) { (void)device; snprintf(name, length, "Stand-in"); return 0; }
int nvmlDeviceGetUUID(void *device, char *id, unsigned length) {
    (void)device; snprintf(id, length, "GPU-00000000-0000-0000-0000-000000000000"); return 0;
}
int nvmlSystemGetDriverVersion(char *version, unsigned length) { snprintf(version, length, "0.0"); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 13000; return 0; }
int nvmlDeviceGetPersistenceMode(void *device, int *mode) { (void)device; *mode = 0; return 0; }
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
    (void)device;
    memory->total = 100000ull << 20; memory->used = used(); memory->free = memory->total - memory->used;
    return 0;
}
