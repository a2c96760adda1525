/* A library that plays libnvidia-ml.so.1 for tests: it answers from a text file that a test writes, so that GPUs can
 * fail while a server runs. The file is named by FAKE_NVML; it has one line for each GPU, in the order of the bus:
 *
 *   UUID MODEL MEMORY_BYTES LINK NUMA STATE
 *
 * GPUs with the same LINK (not "-") reach each other over NVLink; those with the same NUMA hang on one node. STATE is
 * "ok", "lost" (the GPU no longer answers), "mig" (partitioned) or "xid:NUMBER" (a critical error, told once).
 * A MODEL's underscores stand for blanks. A file that is not there is a machine without a driver. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GPUS_MAX 64
#define SUCCESS 0
#define INVALID_ARGUMENT 2
#define NOT_SUPPORTED 3
#define NOT_FOUND 6
#define DRIVER_NOT_LOADED 9
#define TIMEOUT 10
#define GPU_IS_LOST 15

struct gpu {
    char uuid[96], model[96], link[32], state[32];
    unsigned long long memory;
    int numa;
};
struct event {
    void *device;
    unsigned long long type, data;
    unsigned gpu_instance, compute_instance;
};

static char known[GPUS_MAX][96]; /* a handle is a place in here: it stays when others disappear */
static int known_count;
static int told[GPUS_MAX];

static int read_all(struct gpu *found) {
    const char *path = getenv("FAKE_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    int count = 0;
    if (!file) return -1;
    while (count < GPUS_MAX && fscanf(file, "%95s %95s %llu %31s %d %31s", found[count].uuid, found[count].model,
                                      &found[count].memory, found[count].link, &found[count].numa,
                                      found[count].state) == 6)
        count++;
    fclose(file);
    return count;
}

static void *handle_of(const char *uuid) {
    for (int i = 0; i < known_count; i++)
        if (!strcmp(known[i], uuid)) return known[i];
    strcpy(known[known_count], uuid);
    return known[known_count++];
}

static int find(void *device, struct gpu *gpu) {
    struct gpu all[GPUS_MAX];
    int count = read_all(all);
    for (int i = 0; i < count; i++)
        if (!strcmp(all[i].uuid, (char *)device)) {
            *gpu = all[i];
            return strcmp(gpu->state, "lost") ? SUCCESS : GPU_IS_LOST;
        }
    return GPU_IS_LOST;
}

const char *nvmlErrorString(int code) {
    switch (code) {
    case SUCCESS: return "Success";
    case NOT_FOUND: return "Not Found";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    default: return "Unknown Error";
    }
}

int nvmlInit_v2(void) {
    struct gpu all[GPUS_MAX];
    return read_all(all) < 0 ? DRIVER_NOT_LOADED : SUCCESS;
}

int nvmlShutdown(void) { return SUCCESS; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    struct gpu all[GPUS_MAX];
    int found = read_all(all);
    *count = found < 0 ? 0 : (unsigned)found;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) {
    struct gpu all[GPUS_MAX];
    int count = read_all(all);
    if ((int)index >= count) return INVALID_ARGUMENT;
    if (!strcmp(all[index].state, "lost")) return GPU_IS_LOST;
    *device = handle_of(all[index].uuid);
    return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, void **device) {
    struct gpu gpu;
    int code = find((void *)uuid, &gpu);
    if (code != SUCCESS) return NOT_FOUND;
    *device = handle_of(uuid);
    return SUCCESS;
}

int nvmlDeviceGetUUID(void *device, char *text, unsigned length) {
    snprintf(text, length, "%s", (char *)device);
    return SUCCESS;
}

int nvmlDeviceGetName(void *device, char *text, unsigned length) {
    struct gpu gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    snprintf(text, length, "%s", gpu.model);
    for (char *c = text; *c; c++)
        if (*c == '_') *c = ' ';
    return SUCCESS;
}

int nvmlDeviceGetMemoryInfo(void *device, unsigned long long *memory) {
    struct gpu gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    memory[0] = gpu.memory;
    memory[2] = gpu.memory / 4;
    memory[1] = gpu.memory - memory[2];
    return SUCCESS;
}

int nvmlDeviceGetMigMode(void *device, unsigned *current, unsigned *pending) {
    struct gpu gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    *current = *pending = !strcmp(gpu.state, "mig");
    return SUCCESS;
}

int nvmlDeviceGetP2PStatus(void *one, void *other, int index, int *status) {
    struct gpu a, b;
    if (find(one, &a) != SUCCESS || find(other, &b) != SUCCESS) return GPU_IS_LOST;
    *status = index == 2 && strcmp(a.link, "-") && !strcmp(a.link, b.link) ? 0 : 1;
    return SUCCESS;
}

int nvmlDeviceGetTopologyCommonAncestor(void *one, void *other, int *level) {
    struct gpu a, b;
    if (find(one, &a) != SUCCESS || find(other, &b) != SUCCESS) return GPU_IS_LOST;
    *level = a.numa == b.numa ? 40 : 50;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(void *device, unsigned *rates) {
    struct gpu gpu;
    int code = find(device, &gpu);
    if (code != SUCCESS) return code;
    rates[0] = 37;
    rates[1] = 11;
    return SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, void *entries) {
    struct gpu gpu;
    (void)entries;
    *count = 0;
    return find(device, &gpu);
}

int nvmlEventSetCreate(void **set) {
    *set = told;
    return SUCCESS;
}

int nvmlEventSetFree(void *set) { return set == told ? SUCCESS : INVALID_ARGUMENT; }

int nvmlDeviceRegisterEvents(void *device, unsigned long long types, void *set) {
    (void)device;
    return types == 8 && set == told ? SUCCESS : INVALID_ARGUMENT;
}

int nvmlEventSetWait_v2(void *set, struct event *event, unsigned timeout_ms) {
    struct gpu all[GPUS_MAX];
    int count = read_all(all);
    (void)timeout_ms;
    if (set != told) return INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        int xid = 0;
        if (sscanf(all[i].state, "xid:%d", &xid) != 1) continue;
        int place = (int)((char(*)[96])handle_of(all[i].uuid) - known);
        if (told[place] == xid) continue;
        told[place] = xid;
        event->device = known[place];
        event->type = 8;
        event->data = (unsigned long long)xid;
        return SUCCESS;
    }
    return TIMEOUT;
}
