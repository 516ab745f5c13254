#include "worker/task/lost_inputs.h"

#include <algorithm>
#include <cstdint>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "common/base/digest.h"
#include "common/base/status.h"
#include "worker/task/content_store.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"
#include "worker/task/task_context.h"
#include "worker/task/window_result.h"

namespace uniquanf {
namespace {

constexpr char kWorkObjectUrl[] = "uniquanf/work-object";
constexpr char kLostInputsUrl[] = "uniquanf/lost-inputs";
constexpr uint64_t kPieceBytes = 8 << 20;

bool SaysLost(const absl::Status& status) {
  return absl::IsNotFound(status) || absl::IsOutOfRange(status) || absl::IsDataLoss(status);
}

std::string Payload(const absl::Status& status, const char* url) {
  const auto payload = status.GetPayload(url);
  return payload.has_value() ? std::string(*payload) : "";
}

// Whether the object's bytes hash to its name; a damaged one is deleted.
absl::StatusOr<bool> IsWhole(ObjectStore* work, const std::string& sha256) {
  const std::string key = ContentKey(sha256);
  const absl::StatusOr<ObjectInfo> info = work->Stat(key);
  if (absl::IsNotFound(info.status())) return false;
  UQ_RETURN_IF_ERROR(info.status());
  Sha256 digest;
  std::string piece;
  for (uint64_t offset = 0; offset < info->size_bytes; offset += piece.size()) {
    piece.resize(std::min(info->size_bytes - offset, kPieceBytes));
    UQ_RETURN_IF_ERROR(work->ReadAt(key, offset, piece.size(), piece.data()));
    digest.Update(piece);
  }
  if (digest.FinishHex() == sha256) return true;
  UQ_RETURN_IF_ERROR(work->Delete(key));
  return false;
}

struct Named {
  std::string sha256;
  std::optional<uint64_t> size_bytes;
};

absl::StatusOr<bool> IsThere(ObjectStore* work, const Named& object, const std::string& suspect) {
  if (object.sha256.empty()) return true;
  if (object.sha256 == suspect) return IsWhole(work, object.sha256);
  const absl::StatusOr<ObjectInfo> info = work->Stat(ContentKey(object.sha256));
  if (absl::IsNotFound(info.status())) return false;
  UQ_RETURN_IF_ERROR(info.status());
  if (!object.size_bytes.has_value() || info->size_bytes == *object.size_bytes) return true;
  UQ_RETURN_IF_ERROR(work->Delete(ContentKey(object.sha256)));
  return false;
}

// What the input itself names; nullopt when it is lost.
absl::StatusOr<std::optional<std::vector<Named>>> ReadInput(ObjectStore* work,
                                                            const std::string& sha256, bool is_plan,
                                                            const std::string& suspect) {
  UQ_ASSIGN_OR_RETURN(const bool whole, IsWhole(work, sha256));
  if (!whole) return std::nullopt;
  UQ_ASSIGN_OR_RETURN(const std::string json,
                      GetContent(work, sha256, is_plan ? kMaxPlanBytes : kMaxWindowResultBytes));
  std::vector<Named> named;
  if (is_plan) {
    UQ_ASSIGN_OR_RETURN(const Plan plan, Plan::FromJson(json));
    named = {{plan.calibration_sha256, std::nullopt},
             {plan.distillation_sha256, std::nullopt},
             {plan.self_tokens_sha256, std::nullopt},
             {plan.evaluation_sha256, std::nullopt}};
  } else if (IsWindowResult(json)) {
    UQ_ASSIGN_OR_RETURN(const WindowResult result, WindowResult::FromJson(json));
    for (const LayerResult& layer : result.layers) {
      named.push_back({layer.shard_sha256, layer.shard_size_bytes});
    }
  } else {
    UQ_ASSIGN_OR_RETURN(const LayerResult result, LayerResult::FromJson(json));
    named = {{result.shard_sha256, result.shard_size_bytes}};
    // Needed by the layer's own next round only: looked for where that misses it.
    if (result.state_sha256 == suspect) named.push_back({result.state_sha256, std::nullopt});
  }
  return named;
}

}  // namespace

absl::Status NoteWorkObject(const absl::Status& status, const std::string& sha256) {
  if (!SaysLost(status)) return status;
  absl::Status noted = status;
  noted.SetPayload(kWorkObjectUrl, absl::Cord(sha256));
  return noted;
}

std::string WorkObjectOf(const absl::Status& status) { return Payload(status, kWorkObjectUrl); }

absl::StatusOr<std::vector<std::string>> FindLostInputs(ObjectStore* work,
                                                        const std::string& plan_sha256,
                                                        const std::vector<std::string>& layers,
                                                        const std::string& suspect) {
  std::vector<std::string> inputs = {plan_sha256}, lost;
  inputs.insert(inputs.end(), layers.begin(), layers.end());
  for (size_t i = 0; i < inputs.size(); ++i) {
    UQ_ASSIGN_OR_RETURN(const std::optional<std::vector<Named>> named,
                        ReadInput(work, inputs[i], i == 0, suspect));
    bool there = named.has_value();
    for (size_t n = 0; there && n < named->size(); ++n) {
      UQ_ASSIGN_OR_RETURN(there, IsThere(work, (*named)[n], suspect));
    }
    if (!there) lost.push_back(inputs[i]);
  }
  return lost;
}

absl::Status WithLostInputs(const absl::Status& status, const std::vector<std::string>& inputs) {
  absl::Status marked = status;
  marked.SetPayload(kLostInputsUrl, absl::Cord(absl::StrJoin(inputs, ",")));
  return marked;
}

std::vector<std::string> LostInputsOf(const absl::Status& status) {
  return absl::StrSplit(Payload(status, kLostInputsUrl), ',', absl::SkipEmpty());
}

}  // namespace uniquanf
