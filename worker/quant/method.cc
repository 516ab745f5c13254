// The list of all methods. method_list.inc names the files of methods/; CMake writes it.
#include "worker/quant/method.h"

#include "common/base/check.h"

namespace uniquanf::quant {

#define UQ_METHOD_FILE(name)       \
  namespace methods {              \
  absl::Span<const Method> name(); \
  }
#include "method_list.inc"
#undef UQ_METHOD_FILE

const Method& MethodOf(QuantizationMethod value) {
#define UQ_METHOD_FILE(name)                     \
  for (const Method& method : methods::name()) { \
    if (method.value == value) return method;    \
  }
#include "method_list.inc"
#undef UQ_METHOD_FILE
  UQ_CHECK(false && "a method without a row in worker/quant/methods");
}

}  // namespace uniquanf::quant
