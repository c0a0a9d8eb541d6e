/* What NVIDIA's driver library answers, as far as we ask it: FAKE_GPUS devices, of which number FAKE_LOST has fallen off
   its bus; or FAKE_INIT as the code with which it refuses to begin. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct memory { unsigned long long total, free, used; };
struct use { unsigned gpu, memory; };

static int number(const char *name, int otherwise) {
  const char *said = getenv(name);
  return said && *said ? atoi(said) : otherwise;
}
static int lost(void *device) { return (int)(long)device - 1 == number("FAKE_LOST", -1) ? 15 : 0; }

int nvmlInitWithFlags(unsigned flags) { (void)flags; return number("FAKE_INIT", 0); }
int nvmlInit_v2(void) { return number("FAKE_INIT", 0); }
int nvmlShutdown(void) { puts("shut down"); fflush(stdout); return 0; }
const char *nvmlErrorString(int code) { return code == 9 ? "Driver Not Loaded" : "GPU is lost"; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = (unsigned)number("FAKE_GPUS", 0); return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 1); return 0; }
int nvmlDeviceGetUUID(void *device, char *text, unsigned size) {
  snprintf(text, size, "GPU-0000000%ld", (long)device);
  return 0;
}
int nvmlDeviceGetName(void *device, char *text, unsigned size) {
  (void)device;
  snprintf(text, size, "Stand-in 9000");
  return 0;
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {
  memory->total = 8ULL << 30;
  memory->used = (unsigned long long)(long)device << 30;
  memory->free = memory->total - memory->used;
  return lost(device);
}
int nvmlDeviceGetUtilizationRates(void *device, struct use *use) {
  use->gpu = (unsigned)(long)device * 25;
  use->memory = 10;
  return (long)device == 2 ? 3 : 0; /* not supported by the second */
}
