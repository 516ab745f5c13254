#include "common/base/json_util.h"

#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/base/status.h"
#include "common/base/utf8.h"

namespace uniquanf {
namespace {

using nlohmann::json;

// First pass over untrusted text: stops at the first thing that the DOM parser would let through.
class CheckingHandler : public nlohmann::json_sax<json> {
 public:
  explicit CheckingHandler(int max_depth) : max_depth_(max_depth) {}
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return Enter(); }
  bool start_array(std::size_t) override { return Enter(); }
  bool end_object() override { return Leave(); }
  bool end_array() override { return Leave(); }
  bool key(string_t& name) override {
    if (keys_.back().insert(name).second) return true;
    error_ = absl::StrCat("the key \"", name, "\" appears twice in one object");
    return false;
  }
  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    error_ = absl::StrCat("not valid JSON at byte ", position);
    return false;
  }
  const std::string& error() const { return error_; }

 private:
  bool Enter() {
    if (static_cast<int>(keys_.size()) >= max_depth_) {
      error_ = absl::StrCat("nested deeper than ", max_depth_, " levels");
      return false;
    }
    keys_.emplace_back();
    return true;
  }
  bool Leave() {
    keys_.pop_back();
    return true;
  }

  const int max_depth_;
  std::vector<std::set<std::string>> keys_;
  std::string error_;
};

}  // namespace

absl::StatusOr<json> ParseJson(absl::string_view text, absl::string_view what,
                               absl::string_view reason, int max_depth) {
  CheckingHandler handler(max_depth);
  if (!json::sax_parse(text.begin(), text.end(), &handler)) {
    return InvalidInput(reason, absl::StrCat(what, ": ", handler.error()));
  }
  json value = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (value.is_discarded()) return InvalidInput(reason, absl::StrCat(what, ": not valid JSON"));
  return value;
}

std::string PythonJsonToJson(absl::string_view text) {
  constexpr std::pair<absl::string_view, absl::string_view> kWords[] = {
      {"Infinity", "1.7976931348623157e308"}, {"NaN", "null"}};
  std::string out;
  out.reserve(text.size());
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      absl::StrAppend(&out, text.substr(i, 2));
      ++i;
      continue;
    }
    if (text[i] == '"') in_string = !in_string;
    const auto word =
        std::find_if(std::begin(kWords), std::end(kWords), [&](const auto& candidate) {
          return text[i] == candidate.first[0] && absl::StartsWith(text.substr(i), candidate.first);
        });
    if (in_string || word == std::end(kWords)) {
      out.push_back(text[i]);
      continue;
    }
    absl::StrAppend(&out, word->second);
    i += word->first.size() - 1;
  }
  return out;
}

JsonObjectReader::JsonObjectReader(const json& value, absl::string_view path,
                                   absl::string_view reason)
    : object_(value.is_object() ? &value : nullptr), path_(path), reason_(reason) {
  if (object_ == nullptr) {
    Fail(absl::StrCat(path_.empty() ? "the document" : path_, " must be a JSON object, not ",
                      value.type_name()));
  }
}

std::string JsonObjectReader::PathOf(absl::string_view name) const {
  return path_.empty() ? std::string(name) : absl::StrCat(path_, ".", name);
}

void JsonObjectReader::Fail(absl::string_view message) {
  if (status_.ok()) status_ = InvalidInput(reason_, message);
}

bool JsonObjectReader::Has(absl::string_view name) const {
  return object_ != nullptr && object_->contains(std::string(name));
}

const json* JsonObjectReader::Find(absl::string_view name, Presence presence) {
  known_.insert(std::string(name));
  if (object_ == nullptr) return nullptr;
  const auto member = object_->find(std::string(name));
  if (member != object_->end()) return &*member;
  if (presence == kRequired) Fail(absl::StrCat("the field ", PathOf(name), " is missing"));
  return nullptr;
}

void JsonObjectReader::FailType(absl::string_view name, absl::string_view expected,
                                const json& value) {
  std::string shown = value.dump(-1, ' ', false, json::error_handler_t::replace);
  if (shown.size() > 60) shown = ShortText(shown, 57);
  Fail(absl::StrCat(PathOf(name), " must be ", expected, ", not ", shown));
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, std::string* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  if (!value->is_string()) return FailType(name, "a string", *value);
  *out = value->get_ref<const std::string&>();
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, bool* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  if (!value->is_boolean()) return FailType(name, "true or false", *value);
  *out = value->get<bool>();
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, int* out) {
  int64_t wide = *out;
  Read(name, presence, &wide);
  if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
    return Fail(absl::StrCat(PathOf(name), " must be a 32-bit integer, not ", wide));
  }
  *out = static_cast<int>(wide);
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, int64_t* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  const bool fits =
      value->is_number_integer() &&
      (!value->is_number_unsigned() ||
       value->get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
  if (!fits) return FailType(name, "an integer", *value);
  *out = value->get<int64_t>();
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, uint64_t* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  if (!value->is_number_unsigned()) return FailType(name, "an integer of 0 or more", *value);
  *out = value->get<uint64_t>();
}

void JsonObjectReader::Read(absl::string_view name, Presence presence, double* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    return FailType(name, "a number", *value);
  }
  *out = value->get<double>();
}

void JsonObjectReader::ReadOrNan(absl::string_view name, Presence presence, double* out) {
  const json* value = Find(name, presence);
  if (value == nullptr) return;
  if (!value->is_null()) return Read(name, presence, out);
  *out = std::numeric_limits<double>::quiet_NaN();
}

void JsonObjectReader::ReadOrNan(absl::string_view name, Presence presence,
                                 std::vector<double>* out) {
  const json* value = ReadArray(name, presence);
  if (value == nullptr) return;
  std::vector<double> numbers;
  for (const json& element : *value) {
    if (!element.is_null() && !element.is_number()) {
      return FailType(name, "an array of numbers", *value);
    }
    numbers.push_back(element.is_null() ? std::numeric_limits<double>::quiet_NaN()
                                        : element.get<double>());
  }
  *out = std::move(numbers);
}

void JsonObjectReader::Read(absl::string_view name, Presence presence,
                            std::vector<std::string>* out) {
  const json* value = ReadArray(name, presence);
  if (value == nullptr) return;
  std::vector<std::string> strings;
  for (const json& element : *value) {
    if (!element.is_string()) return FailType(name, "an array of strings", *value);
    strings.push_back(element.get<std::string>());
  }
  *out = std::move(strings);
}

const json* JsonObjectReader::ReadObject(absl::string_view name, Presence presence) {
  const json* value = Find(name, presence);
  if (value == nullptr || value->is_object()) return value;
  FailType(name, "an object", *value);
  return nullptr;
}

const json* JsonObjectReader::ReadArray(absl::string_view name, Presence presence) {
  const json* value = Find(name, presence);
  if (value == nullptr || value->is_array()) return value;
  FailType(name, "an array", *value);
  return nullptr;
}

absl::Status JsonObjectReader::Finish() {
  if (status_.ok() && object_ != nullptr) {
    for (const auto& [name, value] : object_->items()) {
      if (known_.count(name) == 0) {
        Fail(absl::StrCat("unknown field ", PathOf(name),
                          "; known fields: ", absl::StrJoin(known_, ", ")));
        break;
      }
    }
  }
  return status_;
}

std::string CompactJson(const OrderedJson& value) {
  return value.dump(-1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace);
}

std::string IndentedJson(const OrderedJson& value) {
  return value.dump(1, ' ', /*ensure_ascii=*/false, json::error_handler_t::replace) + "\n";
}

}  // namespace uniquanf
