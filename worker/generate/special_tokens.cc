#include "worker/generate/special_tokens.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

constexpr uint64_t kMaxBytes = 1 << 20;

// The ids of a field: a number, or a list of numbers; nothing where it is missing or null.
absl::StatusOr<std::vector<int32_t>> IdsOf(const nlohmann::json& object, absl::string_view file,
                                           const char* field, int64_t vocab_size) {
  std::vector<int32_t> ids;
  const auto member = object.find(field);
  if (member == object.end() || member->is_null()) return ids;
  const nlohmann::json list = member->is_array() ? *member : nlohmann::json::array({*member});
  for (const nlohmann::json& id : list) {
    if (!id.is_number_integer() || id < 0 || id >= vocab_size) {
      return InvalidInput("INVALID_MODEL_CONFIG",
                          absl::StrCat(file, ": ", field, " is no token id below ", vocab_size,
                                       ", nor a list of such"));
    }
    ids.push_back(id.get<int32_t>());
  }
  return ids;
}

// Of the first of both files that has the field.
absl::StatusOr<std::vector<int32_t>> Ids(const nlohmann::json& generation,
                                         const nlohmann::json& config, const char* field,
                                         int64_t vocab_size) {
  UQ_ASSIGN_OR_RETURN(std::vector<int32_t> ids,
                      IdsOf(generation, "generation_config.json", field, vocab_size));
  if (!ids.empty()) return ids;
  return IdsOf(config, "config.json", field, vocab_size);
}

absl::StatusOr<nlohmann::json> ParseObject(absl::string_view text, absl::string_view file) {
  if (text.empty()) return nlohmann::json::object();
  UQ_ASSIGN_OR_RETURN(nlohmann::json object, ParseJson(text, file, "INVALID_MODEL_CONFIG"));
  if (object.is_object()) return object;
  return InvalidInput("INVALID_MODEL_CONFIG", absl::StrCat(file, " is not an object"));
}

}  // namespace

absl::StatusOr<BoundaryTokens> ParseSpecialTokens(absl::string_view config,
                                                  absl::string_view generation_config,
                                                  int64_t vocab_size) {
  UQ_ASSIGN_OR_RETURN(const nlohmann::json model, ParseObject(config, "config.json"));
  UQ_ASSIGN_OR_RETURN(const nlohmann::json generation,
                      ParseObject(generation_config, "generation_config.json"));
  BoundaryTokens tokens;
  UQ_ASSIGN_OR_RETURN(const std::vector<int32_t> begin,
                      Ids(generation, model, "bos_token_id", vocab_size));
  if (!begin.empty()) tokens.begin = begin.front();
  UQ_ASSIGN_OR_RETURN(tokens.end, Ids(generation, model, "eos_token_id", vocab_size));
  std::sort(tokens.end.begin(), tokens.end.end());
  return tokens;
}

absl::StatusOr<BoundaryTokens> ReadSpecialTokens(ObjectStore* store, absl::string_view config,
                                                 int64_t vocab_size) {
  const absl::StatusOr<std::string> generation = store->Read("generation_config.json", kMaxBytes);
  if (!generation.ok() && !absl::IsNotFound(generation.status())) return generation.status();
  return ParseSpecialTokens(config, generation.ok() ? *generation : "", vocab_size);
}

}  // namespace uniquanf
