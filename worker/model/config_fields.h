// Typed, range-checked access to the fields of a config.json object. Missing and null are the same,
// as in Hugging Face.
//
// Thread-safe; borrows the JSON object. Errors: kInvalidArgument (INVALID_MODEL_CONFIG) names the
// field with its path, its value and what it may be.
#ifndef UNIQUANF_WORKER_MODEL_CONFIG_FIELDS_H_
#define UNIQUANF_WORKER_MODEL_CONFIG_FIELDS_H_

#include <cstdint>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace uniquanf {

// Larger than any model's; keeps every product of two or three of them inside 64 bits.
inline constexpr int64_t kMaxHidden = 1 << 17, kMaxIntermediate = 1 << 20, kMaxHeads = 4096;
inline constexpr int64_t kMaxHeadDim = 512, kMaxLayers = 4096, kMaxVocab = 1 << 24;
inline constexpr int64_t kMaxExperts = 1024;
inline constexpr int64_t kMaxPositions = int64_t{1} << 32;

// kInvalidArgument (INVALID_MODEL_CONFIG): "config.json: " and the message.
absl::Status ConfigError(absl::string_view message);

class Fields {
 public:
  // `path` comes before names in messages: "rope_parameters.".
  Fields(const nlohmann::json& object, std::string path)
      : object_(object), path_(std::move(path)) {}

  const nlohmann::json* Find(absl::string_view name) const;
  // Also true of a field that is null.
  bool Has(absl::string_view name) const;
  const nlohmann::json& object() const { return object_; }
  const std::string& path() const { return path_; }
  // The first of these names that the object has; the first of all where it has none.
  absl::string_view FirstOf(std::initializer_list<absl::string_view> names) const;

  // Without a fallback the field must be there. Integers lie in [low, high], numbers too.
  absl::StatusOr<int64_t> Integer(absl::string_view name, std::optional<int64_t> fallback,
                                  int64_t low, int64_t high) const;
  absl::StatusOr<double> Number(absl::string_view name, std::optional<double> fallback, double low,
                                double high) const;
  absl::StatusOr<bool> Boolean(absl::string_view name, bool fallback) const;
  absl::StatusOr<std::string> String(absl::string_view name, absl::string_view fallback) const;
  // An object's fields; empty where there is none.
  absl::StatusOr<std::optional<Fields>> Object(absl::string_view name) const;

  // The value for a message, shortened.
  static std::string Text(const nlohmann::json& value);

 private:
  absl::Status Missing(absl::string_view name) const;
  absl::Status Wrong(absl::string_view name, const nlohmann::json& value,
                     absl::string_view wanted) const;

  const nlohmann::json& object_;
  std::string path_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_MODEL_CONFIG_FIELDS_H_
