// The architectures of config.json that the engine can quantize, in alphabetical order.
// Thread safety: a free function.
#ifndef UNIQUANF_WORKER_MODEL_SUPPORTED_ARCHITECTURES_H_
#define UNIQUANF_WORKER_MODEL_SUPPORTED_ARCHITECTURES_H_

#include <string>
#include <vector>

namespace uniquanf {

std::vector<std::string> SupportedArchitectures();

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_SUPPORTED_ARCHITECTURES_H_
