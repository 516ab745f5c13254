// A model family is a row: the names by which a config.json asks for it and the function that
// resolves the config. Every .cc file of this folder holds the rows of some related families; see
// README.md for how to add one.
#ifndef UNIQUANF_WORKER_MODEL_FAMILIES_FAMILY_H_
#define UNIQUANF_WORKER_MODEL_FAMILIES_FAMILY_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/model/config_fields.h"
#include "worker/model/model_config.h"

namespace uniquanf {

struct Family {
  const char* model_type;    // "llama"
  const char* architecture;  // "LlamaForCausalLM"
  // Everything of ModelConfig but model_type and architecture.
  absl::StatusOr<ModelConfig> (*parse)(const Fields& fields);
  // Of a model that holds a text model of another row in its text_config: that row's model_type,
  // unless text_config says another. Without text_config it is parsed itself, if it can be.
  const char* nested_type = nullptr;
  // Why a family that people ask for is not supported; then nothing else is used.
  const char* refusal = nullptr;
};

// The rows of all files, in the files' order.
const std::vector<const Family*>& Families();

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_FAMILIES_FAMILY_H_
