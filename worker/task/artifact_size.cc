#include "worker/task/artifact_size.h"

#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "common/artifact/artifact_config.h"
#include "common/artifact/layout.h"
#include "common/base/status.h"
#include "worker/task/copied_files.h"
#include "worker/task/layer_shard.h"

namespace uniquanf {

absl::StatusOr<int64_t> ArtifactSize(const Plan& plan, const Checkpoint& checkpoint) {
  const ModelConfig& config = checkpoint.config();
  const int num_shards = config.num_layers + 1;
  std::map<std::string, std::string> tensor_to_file;
  uint64_t tensor_bytes = 0, total = 0;
  const auto add = [&](const ShardSize& shard, int index) {
    total += shard.file_bytes;
    tensor_bytes += shard.tensor_bytes;
    for (const std::string& name : shard.tensors) {
      tensor_to_file[name] = ShardFileName(index, num_shards);
    }
  };
  UQ_ASSIGN_OR_RETURN(const ShardSize outer, OuterShardSize(checkpoint));
  add(outer, 0);
  std::vector<ManifestModule> modules;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    std::map<std::string, PackedLinear> packed;
    for (int l = 0; l < config.blocks[layer].num_linears(); ++l) {
      ManifestModule module;
      module.name = config.ModuleName(layer, l);
      std::tie(module.num_outputs, module.num_inputs) = config.blocks[layer].LinearShape(l);
      const ModuleSettings settings = SettingsOf(plan, module.name);
      module.quantized = !settings.full_precision;
      if (module.quantized) {
        module.bits = settings.bits;
        module.group_size = settings.group_size == 0 ? module.num_inputs : settings.group_size;
        PackedLinear shape;  // no values: only the declarations count
        shape.bits = module.bits;
        shape.num_outputs = module.num_outputs;
        shape.num_inputs = module.num_inputs;
        shape.group_size = module.group_size;
        packed.emplace(module.name, std::move(shape));
      }
      modules.push_back(std::move(module));
    }
    UQ_ASSIGN_OR_RETURN(const ShardSize shard, LayerShardSize(checkpoint, layer, packed));
    add(shard, layer + 1);
  }
  modules.push_back(HeadModule(config));
  UQ_ASSIGN_OR_RETURN(const ArtifactConfig artifact_config,
                      BuildArtifactConfig(checkpoint.config_json(), plan.spec, modules));
  total += artifact_config.json.size() + BuildIndexJson(tensor_to_file, tensor_bytes).size();
  UQ_ASSIGN_OR_RETURN(const CopyPlan copies, PlanCopies(checkpoint.store().get()));
  return static_cast<int64_t>(total + copies.size_bytes());
}

}  // namespace uniquanf
