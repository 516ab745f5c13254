#include "tests/fuzz/fuzz_target.h"

#include <cstring>
#include <utility>

#include "common/base/check.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

class MemoryStore : public ObjectStore {
 public:
  explicit MemoryStore(std::map<std::string, std::string> objects) : objects_(std::move(objects)) {}
  std::string uri() const override { return "memory:"; }
  absl::StatusOr<ObjectInfo> Stat(absl::string_view key) override {
    const auto found = objects_.find(std::string(key));
    if (found == objects_.end()) return NotFound("OBJECT_NOT_FOUND", key);
    return ObjectInfo{std::string(key), found->second.size(), absl::UnixEpoch(), ""};
  }
  absl::Status ReadAt(absl::string_view key, uint64_t offset, uint64_t size_bytes,
                      char* out) override {
    const auto found = objects_.find(std::string(key));
    if (found == objects_.end()) return NotFound("OBJECT_NOT_FOUND", key);
    const std::string& bytes = found->second;
    // Whoever asks for more than Stat told has computed with a number of the input's.
    UQ_CHECK(offset <= bytes.size() && size_bytes <= bytes.size() - offset);
    std::memcpy(out, bytes.data() + offset, size_bytes);
    return absl::OkStatus();
  }
  absl::StatusOr<std::unique_ptr<ObjectWriter>> NewWriter(absl::string_view,
                                                          const WriteOptions&) override {
    return absl::UnimplementedError("read-only");
  }
  absl::StatusOr<ListResult> List(const ListOptions&) override { return ListResult(); }
  absl::Status Delete(absl::string_view) override { return absl::OkStatus(); }

 private:
  const std::map<std::string, std::string> objects_;
};

}  // namespace

void CheckRefusal(const absl::Status& status) {
  UQ_CHECK(absl::IsInvalidArgument(status) || absl::IsFailedPrecondition(status) ||
           absl::IsDataLoss(status) || absl::IsNotFound(status) || absl::IsOutOfRange(status));
  UQ_CHECK(!ErrorReason(status).empty());
}

std::shared_ptr<ObjectStore> NewMemoryStore(std::map<std::string, std::string> objects) {
  return std::make_shared<MemoryStore>(std::move(objects));
}

std::vector<FuzzTarget> AllFuzzTargets() {
  std::vector<FuzzTarget> all = ArtifactTargets();
  std::vector<std::vector<FuzzTarget>> more = {EngineTargets(), TextTargets()};
#ifdef UNIQUANF_HAVE_SERVICE
  more.push_back(ServiceTargets());
#endif
  for (std::vector<FuzzTarget>& targets : more) {
    for (FuzzTarget& target : targets) all.push_back(std::move(target));
  }
  return all;
}

}  // namespace uniquanf
