#include "worker/task/layer_solve.h"

#include <map>
#include <memory>
#include <set>
#include <utility>
#include <vector>

#include "common/base/status.h"
#include "worker/quant/channel_search.h"
#include "worker/quant/input_moments.h"
#include "worker/quant/method.h"

namespace uniquanf {
namespace {

using Moments = std::vector<std::shared_ptr<quant::InputMoments>>;

// What the method scales, site after site.
absl::Status ScaleSites(const LayerTask& task, const Moments& moments, quant::ScaledBlock* scaled) {
  const BlockSpec& block = task.block();
  std::map<int, int> linear_of;  // tensor to linear
  for (int l = 0; l < block.num_linears(); ++l) linear_of[block.linears[l]] = l;
  for (const FoldSite& site : FindFoldSites(block)) {
    if (IsCancelled(task.env)) return CancelledError();
    if (!quant::CanScale(*scaled, site)) continue;
    std::vector<quant::ScaledLinear> linears;
    std::set<quant::InputMoments*> inputs;
    for (const int tensor : site.columns) {
      const auto it = linear_of.find(tensor);
      if (it == linear_of.end()) continue;
      quant::InputMoments* const own = moments[it->second].get();
      const ModuleSettings settings = SettingsOf(task.plan(), task.modules[it->second]);
      linears.push_back({tensor, settings.bits,
                         settings.group_size == 0 ? own->width : settings.group_size, own});
      inputs.insert(own);
    }
    if (linears.empty()) continue;
    UQ_ASSIGN_OR_RETURN(std::vector<float> scales,
                        quant::SearchScales(task.env.backend, task.env.act, task.plan().spec.levels,
                                            site, *scaled, linears));
    if (quant::ScaleChannels(site, /*adjust=*/true, &scales, scaled) == 0) continue;
    for (quant::InputMoments* const own : inputs) {
      std::vector<float> of_inputs(own->width);
      for (int64_t k = 0; k < own->width; ++k) of_inputs[k] = scales[site.ChannelOf(k)];
      own->DivideInputs(of_inputs);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status SolveBlock(const LayerTask& task, Loaded* loaded, quant::ScaledBlock* scaled,
                        Optimized* optimized) {
  Backend* const backend = task.env.backend;
  const BlockSpec& block = task.block();
  const quant::Method& method = quant::MethodOf(task.plan().spec.method);
  const LayerInputs& inputs = loaded->inputs;
  ReportProgress(task.env, "initializing", 0, block.num_linears());
  UQ_ASSIGN_OR_RETURN(const Moments moments,
                      quant::MeasureInputMoments(backend, block, loaded->rope, loaded->weights,
                                                 inputs.x_q.empty() ? inputs.x_fp : inputs.x_q,
                                                 [&task] { return IsCancelled(task.env); }));
  if (method.scales_channels) {
    UQ_RETURN_IF_ERROR(ScaleSites(task, moments, scaled));
    UQ_RETURN_IF_ERROR(UploadChanged(task, *scaled, &loaded->weights));
  }
  optimized->weights = std::move(loaded->weights);
  for (int l = 0; l < block.num_linears(); ++l) {
    if (IsCancelled(task.env)) return CancelledError();
    ReportProgress(task.env, "initializing", l, block.num_linears());
    const ModuleSettings settings = SettingsOf(task.plan(), task.modules[l]);
    if (settings.full_precision) continue;
    UQ_ASSIGN_OR_RETURN(optimized->states[l],
                        NewStateOf(task, l, &optimized->weights[block.linears[l]]));
    UQ_RETURN_IF_ERROR(
        method.solve(task.plan().spec.levels, moments[l].get(), &*optimized->states[l]));
  }
  return backend->Synchronize();
}

}  // namespace uniquanf
