// What this process may use of the machine: memory and processors, within the limits of its control
// groups (Linux cgroups, version 1, version 2 or both at once), of all groups above them, and of
// its address space. A container's limits are such groups; the machine's own numbers would have it
// plan for memory that it is killed for touching.
//
// Thread safety: free functions, which read files of the kernel every time: some 50 µs.
// Errors: none. What cannot be read or understood limits nothing.
#ifndef UNIQUANF_COMMON_BASE_MACHINE_RESOURCES_H_
#define UNIQUANF_COMMON_BASE_MACHINE_RESOURCES_H_

#include <cstdint>
#include <string>

namespace uniquanf {

struct MachineResources {
  // The machine's RAM, or the least limit of the process's groups where that is less. Of version 2
  // both memory.max and memory.high count: beyond the latter a process is slowed down until it
  // stands still. 0 only where /proc cannot be read.
  uint64_t memory_bytes = 0;
  // What is free of it, page cache that the kernel would give back included.
  uint64_t available_memory_bytes = 0;
  // What this process itself holds, without what it shares or what files back.
  uint64_t own_memory_bytes = 0;
  // A limit decides memory_bytes or what is available of it, not the machine.
  bool memory_is_limited = false;
  // The limit on this process's address space (ulimit -v) less what is taken of it; UINT64_MAX:
  // there is none. It counts as a limit on memory too.
  uint64_t free_address_space_bytes = UINT64_MAX;
  // Processors of the process's affinity mask (or of a group's cpuset where those are fewer), or
  // the least quota of its groups, rounded up. At least 1.
  int num_cpus = 1;
};

// `root`: a directory that holds proc/ and what proc/self/mountinfo names, for tests; "" is the
// real one.
MachineResources ReadMachineResources(const std::string& root = "");

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_MACHINE_RESOURCES_H_
