#include "worker/task/model_changes.h"

#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "common/base/digest.h"
#include "common/base/parallel.h"
#include "common/base/status.h"

namespace uniquanf {
namespace {

std::string NotesKey(const std::string& plan_sha256) {
  return RunFactsKey(absl::StrCat("model-", plan_sha256));
}

// Every file of the model's tensors and its version, a line each; "" where a store has none.
std::string FileVersions(const Checkpoint& checkpoint) {
  std::set<std::string> files;
  for (const std::string& name : checkpoint.TensorNames()) {
    const absl::StatusOr<SourceTensor> tensor = checkpoint.FindRaw(name);
    if (tensor.ok()) files.insert(tensor->file->key());
  }
  std::string versions;
  for (const std::string& file : files) {
    const absl::StatusOr<ObjectInfo> info = checkpoint.store()->Stat(file);
    if (!info.ok() || info->version.empty()) return "";
    absl::StrAppend(&versions, file, " ", info->version, "\n");
  }
  return versions;
}

}  // namespace

std::string WeightsDigest(const BlockSpec& spec, const HostBlock& block) {
  std::vector<std::string> digests(spec.num_linears());
  ParallelRanges(spec.num_linears(), 1, [&](int64_t l, int64_t) {
    const std::vector<float>& weight = block[spec.linears[l]];
    digests[l] = Sha256Hex(absl::string_view(reinterpret_cast<const char*>(weight.data()),
                                             weight.size() * sizeof(float)));
  });
  return Sha256Hex(absl::StrJoin(digests, "\n"));
}

absl::Status CheckWeightsUnchanged(const Checkpoint& checkpoint, const LayerResult& result,
                                   const HostBlock& original) {
  const ModelConfig& config = checkpoint.config();
  if (WeightsDigest(config.blocks[result.layer], original) == result.weights_sha256) {
    return absl::OkStatus();
  }
  std::set<std::string> files;
  for (const std::string& name : checkpoint.TensorNames()) {
    if (config.LayerOf(name) != result.layer) continue;
    const absl::StatusOr<SourceTensor> tensor = checkpoint.FindRaw(name);
    if (tensor.ok()) files.insert(tensor->file->key());
  }
  return FailedPrecondition(
      "MODEL_CHANGED",
      absl::StrCat("the model changed: the weights of layer ", result.layer, " in ",
                   checkpoint.store()->uri(), "/", absl::StrJoin(files, ", "),
                   " are no longer those that its stored result was computed from. Start anew: "
                   "--fresh, or a new job"));
}

void NoteModelFiles(const Checkpoint& checkpoint, const std::string& plan_sha256,
                    const TaskEnvironment& env) {
  WriteOptions options;
  options.if_absent = true;
  env.work->Write(NotesKey(plan_sha256), FileVersions(checkpoint), options).IgnoreError();
}

absl::Status CheckModelUnchanged(const TaskContext& context, const std::string& plan_sha256,
                                 const std::vector<LayerResult>& results,
                                 const TaskEnvironment& env) {
  const Checkpoint& checkpoint = *context.checkpoint;
  const absl::StatusOr<std::string> noted = env.work->Read(NotesKey(plan_sha256), 16 << 20);
  if (noted.ok() && !noted->empty() && *noted == FileVersions(checkpoint)) {
    return absl::OkStatus();
  }
  for (const LayerResult& result : results) {
    if (IsCancelled(env)) return CancelledError();
    UQ_ASSIGN_OR_RETURN(const HostBlock original, checkpoint.LoadBlock(result.layer));
    UQ_RETURN_IF_ERROR(CheckWeightsUnchanged(checkpoint, result, original));
  }
  return absl::OkStatus();
}

absl::Status CheckFinishedLayer(const QuantizationSpec& spec, const std::string& plan_sha256,
                                LayerRound layer, const std::string& result_sha256,
                                const TaskEnvironment& env) {
  UQ_ASSIGN_OR_RETURN(const TaskContext context, OpenTaskContext(spec, plan_sha256, env));
  UQ_ASSIGN_OR_RETURN(const LayerResult result,
                      LoadLayerResult(plan_sha256, layer, result_sha256, env));
  if (layer.layer < 0 || layer.layer >= context.plan.num_layers) {
    return InvalidInput("LAYER_OUT_OF_RANGE", absl::StrCat("there is no layer ", layer.layer));
  }
  UQ_ASSIGN_OR_RETURN(const HostBlock original, context.checkpoint->LoadBlock(layer.layer));
  return CheckWeightsUnchanged(*context.checkpoint, result, original);
}

}  // namespace uniquanf
