#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/json_util.h"
#include "common/base/status.h"
#include "common/base/utf8.h"
#include "common/safetensors/safetensors.h"

namespace uniquanf {
namespace {

struct Pending {
  std::string name;
  uint64_t size_bytes;
};

class WriterImpl : public SafetensorsWriter {
 public:
  WriterImpl(ObjectWriter* out, std::vector<Pending> tensors)
      : out_(out), tensors_(std::move(tensors)) {
    SkipFinished();
  }

  absl::Status Append(absl::string_view name, const void* data, uint64_t size_bytes) override {
    // An empty tensor needs no bytes; being told of them is fine.
    if (size_bytes == 0) return absl::OkStatus();
    if (next_ == tensors_.size() || tensors_[next_].name != name) {
      return InvalidInput(
          "SAFETENSORS_BAD_ORDER",
          absl::StrCat("tensor \"", name, "\" is not next; next is ",
                       next_ == tensors_.size() ? "the end of the file"
                                                : absl::StrCat("\"", tensors_[next_].name, "\"")));
    }
    if (size_bytes > tensors_[next_].size_bytes - written_) {
      return InvalidInput("TENSOR_SHAPE", absl::StrCat("tensor \"", name, "\" was declared with ",
                                                       tensors_[next_].size_bytes, " bytes, and ",
                                                       written_ + size_bytes, " were written"));
    }
    UQ_RETURN_IF_ERROR(out_->Append(absl::string_view(static_cast<const char*>(data), size_bytes)));
    written_ += size_bytes;
    SkipFinished();
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    if (next_ == tensors_.size()) return absl::OkStatus();
    return InvalidInput(
        "TENSOR_SHAPE",
        absl::StrCat("tensor \"", tensors_[next_].name, "\" was declared with ",
                     tensors_[next_].size_bytes, " bytes, and only ", written_, " were written"));
  }

 private:
  void SkipFinished() {
    while (next_ < tensors_.size() && written_ == tensors_[next_].size_bytes) {
      ++next_;
      written_ = 0;
    }
  }

  ObjectWriter* const out_;
  const std::vector<Pending> tensors_;
  size_t next_ = 0;       // the tensor being written
  uint64_t written_ = 0;  // of its bytes
};

absl::Status BadHeader(absl::string_view message) {
  return InvalidInput("SAFETENSORS_BAD_HEADER", message);
}

}  // namespace

void SafetensorsWriter::SortForAlignment(std::vector<Declaration>* tensors) {
  std::sort(tensors->begin(), tensors->end(), [](const Declaration& a, const Declaration& b) {
    const int64_t a_bits = SafetensorsDTypeBits(a.dtype);
    const int64_t b_bits = SafetensorsDTypeBits(b.dtype);
    return a_bits != b_bits ? a_bits > b_bits : a.name < b.name;
  });
}

absl::StatusOr<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::Create(
    ObjectWriter* out, std::vector<Declaration> tensors,
    const std::map<std::string, std::string>& metadata) {
  std::vector<Pending> pending;
  std::set<std::string> names;
  uint64_t offset = 0;
  OrderedJson json = OrderedJson::object();
  bool is_utf8 = true;
  for (const auto& [key, value] : metadata) is_utf8 = is_utf8 && IsUtf8(key) && IsUtf8(value);
  if (!metadata.empty()) json["__metadata__"] = metadata;
  // Names are unique: appended without looking for each of them.
  auto& members = json.get_ref<OrderedJson::object_t&>();
  for (const Declaration& tensor : tensors) {
    if (tensor.name.empty() || tensor.name == "__metadata__") {
      return BadHeader(absl::StrCat("\"", tensor.name, "\" can not be a tensor's name"));
    }
    if (!names.insert(tensor.name).second) {
      return BadHeader(absl::StrCat("tensor \"", tensor.name, "\" is declared twice"));
    }
    const absl::StatusOr<uint64_t> size_bytes = TensorBytes(tensor.dtype, tensor.shape);
    if (!size_bytes.ok()) {
      return Annotate(size_bytes.status(), absl::StrCat("tensor \"", tensor.name, "\""));
    }
    members.emplace_back(tensor.name,
                         OrderedJson{{"dtype", std::string(SafetensorsDTypeName(tensor.dtype))},
                                     {"shape", tensor.shape},
                                     {"data_offsets", {offset, offset + *size_bytes}}});
    is_utf8 = is_utf8 && IsUtf8(tensor.name);
    offset += *size_bytes;
    pending.push_back({tensor.name, *size_bytes});
  }
  if (!is_utf8) return BadHeader("a tensor's name or the metadata is not valid UTF-8");
  std::string header = CompactJson(json);
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > SafetensorsFile::kMaxHeaderBytes) {
    return InvalidInput("SAFETENSORS_HEADER_TOO_LARGE",
                        absl::StrCat("the header would have ", header.size(), " bytes; at most ",
                                     SafetensorsFile::kMaxHeaderBytes, " are allowed"));
  }
  const uint64_t header_bytes = header.size();
  char prefix[8];
  std::memcpy(prefix, &header_bytes, sizeof(prefix));
  UQ_RETURN_IF_ERROR(out->Append(absl::StrCat(absl::string_view(prefix, 8), header)));
  return std::make_unique<WriterImpl>(out, std::move(pending));
}

}  // namespace uniquanf
