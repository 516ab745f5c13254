// Core dumps hold keys, tokens and tenants' data, and lie where others read them.
// Thread safety: free function.
#ifndef UNIQUANF_COMMON_BASE_CORE_DUMPS_H_
#define UNIQUANF_COMMON_BASE_CORE_DUMPS_H_

namespace uniquanf {

// From here on the process leaves no core dump, and only root may look into it (ptrace,
// /proc/PID/mem). Its children inherit neither: they are other programs.
void ForbidCoreDumps();

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_BASE_CORE_DUMPS_H_
