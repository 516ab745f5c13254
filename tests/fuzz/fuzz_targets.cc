#include "tests/fuzz/fuzz_targets.h"

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "common/artifact/manifest.h"
#include "common/base/check.h"
#include "common/base/status.h"
#include "common/safetensors/header_parser.h"
#include "common/safetensors/safetensors.h"
#include "common/spec/quantization_spec.h"

namespace uniquanf {
namespace {

constexpr uint64_t kDataBytes = 1000;

// What users see: an invalid-argument status with a reason.
void CheckRefusal(const absl::Status& status) {
  UQ_CHECK(absl::IsInvalidArgument(status) && !ErrorReason(status).empty());
}

// One object in memory, whatever the key.
class OneObjectStore : public ObjectStore {
 public:
  explicit OneObjectStore(absl::string_view bytes) : bytes_(bytes) {}
  std::string uri() const override { return "memory:"; }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    return ObjectInfo{std::string(key), bytes_.size(), absl::UnixEpoch()};
  }
  absl::Status ReadAt(absl::string_view, uint64_t offset, uint64_t size_bytes, char* out) override {
    UQ_CHECK(offset <= bytes_.size() && size_bytes <= bytes_.size() - offset);
    std::memcpy(out, bytes_.data() + offset, size_bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view,
                                                          const WriteOptions&) override {
    return absl::UnimplementedError("read-only");
  }
  absl::StatusOr<ListResult> List(const ListOptions&) override { return ListResult(); }
  absl::Status Delete(absl::string_view) override { return absl::OkStatus(); }

 private:
  const std::string bytes_;
};

}  // namespace

bool FuzzSafetensorsHeader(absl::string_view bytes) {
  const absl::StatusOr<SafetensorsHeader> header = ParseSafetensorsHeader(bytes, kDataBytes);
  if (!header.ok()) {
    CheckRefusal(header.status());
    return false;
  }
  const uint64_t start = 8 + bytes.size();
  std::vector<bool> taken(kDataBytes, false);
  for (const auto& [name, info] : header->tensors) {
    UQ_CHECK(name == info.name && !name.empty());
    UQ_CHECK(info.offset >= start && info.offset - start + info.size_bytes <= kDataBytes);
    UQ_CHECK(static_cast<uint64_t>(info.num_elements() * SafetensorsDTypeBytes(info.dtype)) ==
             info.size_bytes);
    for (uint64_t i = 0; i < info.size_bytes; ++i) {
      UQ_CHECK(!taken[info.offset - start + i]);
      taken[info.offset - start + i] = true;
    }
  }
  return true;
}

bool FuzzSafetensorsFile(absl::string_view bytes) {
  const auto file = SafetensorsFile::Open(std::make_shared<OneObjectStore>(bytes), "f");
  if (!file.ok()) {
    CheckRefusal(file.status());
    return false;
  }
  for (const auto& [name, info] : (*file)->tensors()) {
    std::vector<float> floats(info.num_elements());
    std::vector<int64_t> integers(info.num_elements());
    (void)(*file)->ReadFloat(info, floats.data());
    (void)(*file)->ReadInt64(info, integers.data());
  }
  return true;
}

bool FuzzManifest(absl::string_view bytes) {
  const absl::StatusOr<Manifest> manifest = Manifest::FromJson(bytes);
  if (!manifest.ok()) {
    CheckRefusal(manifest.status());
    return false;
  }
  const std::string canonical = manifest->ToJson();
  const absl::StatusOr<Manifest> again = Manifest::FromJson(canonical);
  UQ_CHECK(again.ok() && again->ToJson() == canonical);
  (void)manifest->AverageBits();
  return true;
}

bool FuzzSpec(absl::string_view bytes) {
  const absl::StatusOr<QuantizationSpec> spec = QuantizationSpec::FromJson(bytes);
  if (!spec.ok()) {
    CheckRefusal(spec.status());
    return false;
  }
  const std::string canonical = spec->ToJson();
  const absl::StatusOr<QuantizationSpec> again = QuantizationSpec::FromJson(canonical);
  UQ_CHECK(again.ok() && again->ToJson() == canonical);
  const absl::Status valid = spec->Validate();
  if (!valid.ok()) CheckRefusal(valid);
  (void)SettingsForModule(*spec, "model.layers.0.mlp.down_proj");
  return true;
}

}  // namespace uniquanf
