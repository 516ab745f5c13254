#include "worker/backend/blas_kernel.h"

#include <cblas.h>

#include <cstdlib>
#include <mutex>
#include <string>

// Exported by OpenBLAS builds with DYNAMIC_ARCH, declared in no header; null in other builds.
extern "C" {
__attribute__((weak)) void gotoblas_dynamic_init();
__attribute__((weak)) void gotoblas_dynamic_quit();
}

namespace uniquanf {
namespace {

const char* BestKernel() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) {
    return "SkylakeX";
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return "Haswell";
#endif
  return nullptr;
}

bool IsFallback(const std::string& kernel) {
  return kernel == "Prescott" || kernel == "Core2" || kernel == "Nehalem" || kernel == "Generic";
}

}  // namespace

void SelectBlasKernel() {
  static std::once_flag once;
  std::call_once(once, [] {
    if (gotoblas_dynamic_init == nullptr || gotoblas_dynamic_quit == nullptr) return;
    const char* kernel = BestKernel();
    if (std::getenv("OPENBLAS_CORETYPE") != nullptr || kernel == nullptr) return;
    if (!IsFallback(openblas_get_corename())) return;
    // The library reads its choice from the environment only.
    setenv("OPENBLAS_CORETYPE", kernel, 1);
    gotoblas_dynamic_quit();
    gotoblas_dynamic_init();
    unsetenv("OPENBLAS_CORETYPE");
  });
}

bool BlasMergesPieces() {
  const std::string name = openblas_get_corename();
  for (const char* kernel :
       {"SkylakeX", "Cooperlake", "Sandybridge", "Nehalem", "Prescott", "Core2"}) {
    if (name == kernel) return true;
  }
  return false;
}

}  // namespace uniquanf
