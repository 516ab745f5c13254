#include "common/safetensors/header_parser.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

// More dimensions than any tensor has, few enough that a hostile shape costs nothing.
constexpr size_t kMaxRank = 32;
constexpr size_t kMaxShownName = 200;

// Accepts exactly {"__metadata__": {string: string}, name: {"dtype": string, "shape": [int],
// "data_offsets": [int, int]}} and stops at the first event that does not fit.
class HeaderHandler : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit HeaderHandler(SafetensorsHeader* header) : header_(header) {}

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("true or false"); }
  bool number_integer(number_integer_t value) override {
    return Fail("SAFETENSORS_BAD_HEADER", absl::StrCat(Where(), ": ", value, " is negative"));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text));
  }
  bool binary(binary_t&) override { return false; }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == State::kShape) {
      if (value > static_cast<uint64_t>(INT64_MAX)) {
        return Fail("SAFETENSORS_BAD_HEADER",
                    absl::StrCat(Where(), ": the dimension ", value, " does not fit 63 bits"));
      }
      if (tensor_.shape.size() >= kMaxRank) {
        return Fail("SAFETENSORS_BAD_HEADER",
                    absl::StrCat(Where(), ": more than ", kMaxRank, " dimensions"));
      }
      tensor_.shape.push_back(static_cast<int64_t>(value));
      return true;
    }
    if (state_ == State::kOffsets) {
      if (num_offsets_ >= 2) {
        return Fail("SAFETENSORS_BAD_HEADER",
                    absl::StrCat(Where(), ": data_offsets must be two numbers"));
      }
      offsets_[num_offsets_++] = value;
      return true;
    }
    return Unexpected("a number");
  }

  bool string(string_t& value) override {
    if (state_ == State::kMetadata) {
      header_->metadata[key_] = value;
      return true;
    }
    if (state_ != State::kTensor || key_ != "dtype") return Unexpected("a string");
    const std::optional<SafetensorsDType> dtype = SafetensorsDTypeNamed(value);
    if (dtype.has_value()) {
      tensor_.dtype = *dtype;
      return true;
    }
    return Fail("TENSOR_DTYPE", absl::StrCat(Where(), ": the dtype \"", Shown(value),
                                             "\" is none of the safetensors format"));
  }

  bool start_object(std::size_t) override {
    switch (state_) {
      case State::kStart:
        state_ = State::kTop;
        return true;
      case State::kTop:
        if (key_ == "__metadata__") {
          state_ = State::kMetadata;
        } else {
          state_ = State::kTensor;
          name_ = key_;
          tensor_ = TensorInfo();
          tensor_.name = name_;
          has_dtype_ = has_shape_ = has_offsets_ = false;
          num_offsets_ = 0;
        }
        return true;
      default:
        return Unexpected("an object");
    }
  }

  bool end_object() override {
    switch (state_) {
      case State::kMetadata:
        state_ = State::kTop;
        return true;
      case State::kTensor:
        if (!has_dtype_ || !has_shape_ || !has_offsets_ || num_offsets_ != 2) {
          return Fail("SAFETENSORS_BAD_HEADER",
                      absl::StrCat(Where(), ": needs dtype, shape and two data_offsets"));
        }
        state_ = State::kTop;
        return FinishTensor();
      default:
        state_ = State::kEnd;
        return true;
    }
  }

  bool start_array(std::size_t) override {
    if (state_ != State::kTensor) return Unexpected("an array");
    if (key_ == "shape") {
      state_ = State::kShape;
    } else if (key_ == "data_offsets") {
      state_ = State::kOffsets;
    } else {
      return Unexpected("an array");
    }
    return true;
  }

  bool end_array() override {
    state_ = State::kTensor;
    return true;
  }

  bool key(string_t& value) override {
    key_ = value;
    bool is_new = true;
    if (state_ == State::kTop) {
      is_new = key_ == "__metadata__" ? !std::exchange(has_metadata_, true)
                                      : header_->tensors.count(key_) == 0;
      if (key_.empty()) {
        return Fail("SAFETENSORS_BAD_HEADER", "a tensor's name is empty");
      }
    } else if (state_ == State::kMetadata) {
      is_new = header_->metadata.count(key_) == 0;
    } else if (key_ == "dtype") {
      is_new = !std::exchange(has_dtype_, true);
    } else if (key_ == "shape") {
      is_new = !std::exchange(has_shape_, true);
    } else if (key_ == "data_offsets") {
      is_new = !std::exchange(has_offsets_, true);
    } else {
      return Fail(
          "SAFETENSORS_BAD_HEADER",
          absl::StrCat("tensor \"", Shown(name_), "\": unknown field \"", Shown(key_), "\""));
    }
    if (is_new) return true;
    return Fail("SAFETENSORS_BAD_HEADER", absl::StrCat("\"", Shown(key_), "\" appears twice"));
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    return Fail("SAFETENSORS_BAD_HEADER",
                absl::StrCat("the header is not valid JSON in UTF-8 at byte ", position, " of it"));
  }

  const absl::Status& status() const { return status_; }
  bool complete() const { return state_ == State::kEnd; }

 private:
  enum class State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kEnd };

  static absl::string_view Shown(absl::string_view text) { return text.substr(0, kMaxShownName); }
  std::string Where() const {
    switch (state_) {
      case State::kStart:
      case State::kEnd:
        return "the header";
      case State::kTop:
        return absl::StrCat("\"", Shown(key_), "\"");
      case State::kMetadata:
        return "__metadata__";
      default:
        return absl::StrCat("tensor \"", Shown(name_), "\", field \"", Shown(key_), "\"");
    }
  }
  bool Fail(absl::string_view reason, absl::string_view message) {
    if (status_.ok()) status_ = InvalidInput(reason, message);
    return false;
  }
  bool Unexpected(absl::string_view what) {
    return Fail("SAFETENSORS_BAD_HEADER", absl::StrCat(Where(), ": unexpected ", what));
  }

  bool FinishTensor() {
    const absl::StatusOr<uint64_t> size_bytes = TensorBytes(tensor_.dtype, tensor_.shape);
    const std::string where = absl::StrCat("tensor \"", Shown(name_), "\": ");
    if (!size_bytes.ok()) {
      return Fail("SAFETENSORS_BAD_OFFSETS", absl::StrCat(where, size_bytes.status().message()));
    }
    if (offsets_[1] < offsets_[0]) {
      return Fail("SAFETENSORS_BAD_OFFSETS",
                  absl::StrCat(where, "data_offsets [", offsets_[0], ", ", offsets_[1],
                               "] end before they begin"));
    }
    if (offsets_[1] - offsets_[0] != *size_bytes) {
      return Fail("SAFETENSORS_BAD_OFFSETS",
                  absl::StrCat(where, "shape and dtype ", SafetensorsDTypeName(tensor_.dtype),
                               " need ", *size_bytes, " bytes, but data_offsets [", offsets_[0],
                               ", ", offsets_[1], "] hold ", offsets_[1] - offsets_[0]));
    }
    tensor_.offset = offsets_[0];
    tensor_.size_bytes = *size_bytes;
    header_->tensors.emplace(name_, std::move(tensor_));
    return true;
  }

  SafetensorsHeader* const header_;
  State state_ = State::kStart;
  std::string key_;   // the last key seen
  std::string name_;  // of the tensor being read
  TensorInfo tensor_;
  bool has_metadata_ = false, has_dtype_ = false, has_shape_ = false, has_offsets_ = false;
  uint64_t offsets_[2] = {0, 0};
  int num_offsets_ = 0;
  absl::Status status_;
};

// Tensors must lie inside the data and not share bytes; holes are allowed.
absl::Status CheckLayout(const std::map<std::string, TensorInfo>& tensors, uint64_t data_bytes) {
  std::vector<const TensorInfo*> by_offset;
  by_offset.reserve(tensors.size());
  for (const auto& [name, info] : tensors) {
    if (info.offset > data_bytes || info.size_bytes > data_bytes - info.offset) {
      return InvalidInput(
          "SAFETENSORS_BAD_OFFSETS",
          absl::StrCat("tensor \"", name.substr(0, kMaxShownName), "\" ends at byte ",
                       info.offset + info.size_bytes, " of the data, which has ", data_bytes,
                       "; the file is truncated or its header wrong"));
    }
    if (info.size_bytes > 0) by_offset.push_back(&info);
  }
  std::sort(by_offset.begin(), by_offset.end(),
            [](const TensorInfo* a, const TensorInfo* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < by_offset.size(); ++i) {
    const TensorInfo& before = *by_offset[i - 1];
    if (before.offset + before.size_bytes > by_offset[i]->offset) {
      return InvalidInput(
          "SAFETENSORS_BAD_OFFSETS",
          absl::StrCat("the tensors \"", before.name.substr(0, kMaxShownName), "\" and \"",
                       by_offset[i]->name.substr(0, kMaxShownName), "\" overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view json,
                                                         uint64_t data_bytes) {
  if (json.empty() || json.front() != '{') {
    return InvalidInput("SAFETENSORS_BAD_HEADER",
                        "the header must start with '{'; is this a safetensors file?");
  }
  SafetensorsHeader header;
  HeaderHandler handler(&header);
  const bool parsed = nlohmann::json::sax_parse(json.begin(), json.end(), &handler);
  UQ_RETURN_IF_ERROR(handler.status());
  if (!parsed || !handler.complete()) {
    return InvalidInput("SAFETENSORS_BAD_HEADER", "the header is not a complete JSON object");
  }
  UQ_RETURN_IF_ERROR(CheckLayout(header.tensors, data_bytes));
  for (auto& [name, info] : header.tensors) info.offset += 8 + json.size();
  return header;
}

}  // namespace uniquanf
