#include "worker/export/split_tensors.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/base/status.h"
#include "worker/export/export_format.h"

namespace uniquanf {

bool SplitTensor::is_quantized() const {
  return std::any_of(parts.begin(), parts.end(),
                     [](const Part& part) { return part.packed != nullptr; });
}

std::vector<SplitTensor> FindSplitTensors(const Manifest& manifest, const ModelConfig& config) {
  std::vector<SplitTensor> tensors;
  for (int layer = 0; layer < config.num_layers; ++layer) {
    const std::string prefix = config.LayerPrefix(layer);
    std::map<std::string, size_t> places;
    for (const TensorSpec& spec : config.blocks[layer].tensors) {
      // Vectors, biases of fused layers too, are kept as the source has them.
      if (spec.role == TensorRole::kVector || !spec.stored.constant.empty()) continue;
      const bool keeps_name = spec.role == TensorRole::kMatrix ||  // never quantized
                              spec.stored.name == spec.module + ".weight";
      if (spec.stored.IsPlain() && keeps_name) continue;
      const auto [place, added] = places.try_emplace(spec.stored.name, tensors.size());
      if (added) tensors.push_back({prefix + spec.stored.name, spec.stored.shape, {}});
      SplitTensor::Part part;
      part.module = prefix + spec.module;
      part.spec = &spec;
      part.packed = manifest.FindModule(part.module);
      if (part.packed != nullptr && !part.packed->quantized) part.packed = nullptr;
      tensors[place->second].parts.push_back(std::move(part));
    }
  }
  return tensors;
}

absl::StatusOr<ManifestModule> JoinedModule(const SplitTensor& tensor) {
  ManifestModule joined;
  joined.name = std::string(absl::StripSuffix(tensor.name, ".weight"));
  const StoredForm& form = tensor.parts[0].spec->stored;
  if (tensor.shape.size() != 2 || form.expert >= 0 || form.transposed) {
    return NotPossible(joined.name,
                       "the model stores it transposed or stacked with others, the format by rows");
  }
  for (const SplitTensor::Part& part : tensor.parts) {
    if (part.packed == nullptr) {
      return NotPossible(joined.name, absl::StrCat("its part ", part.module,
                                                   " is in full precision, others are not"));
    }
    if (part.packed->bits != tensor.parts[0].packed->bits ||
        part.packed->group_size != tensor.parts[0].packed->group_size) {
      return NotPossible(joined.name, "its parts differ in bits or group size");
    }
  }
  joined.num_outputs = tensor.shape[0];
  joined.num_inputs = tensor.shape[1];
  joined.quantized = true;
  joined.bits = tensor.parts[0].packed->bits;
  joined.group_size = tensor.parts[0].packed->group_size;
  return joined;
}

absl::StatusOr<PackedLinear> ReadJoinedRows(const ArtifactReader& reader,
                                            const SplitTensor& tensor) {
  const int64_t num_outputs = tensor.shape[0], width = tensor.shape[1];
  PackedLinear joined;
  for (const SplitTensor::Part& part : tensor.parts) {
    UQ_ASSIGN_OR_RETURN(const PackedLinear packed, reader.ReadPacked(part.module));
    if (joined.num_outputs == 0) {
      joined.bits = packed.bits;
      joined.num_outputs = num_outputs;
      joined.num_inputs = width;
      joined.group_size = packed.group_size;
      const auto rows = [&](size_t size) { return size / packed.num_outputs * num_outputs; };
      joined.qweight.resize(rows(packed.qweight.size()));
      joined.alpha.resize(rows(packed.alpha.size()));
      joined.beta.resize(rows(packed.beta.size()));
    }
    // In all three arrays the row is the innermost index.
    part.spec->ForEachRow([&](int64_t element, int64_t stored, int64_t) {
      const int64_t from = element / width, to = stored / width;
      const auto copy = [&](const auto& source, auto* target) {
        for (size_t i = from, j = to; i < source.size();
             i += packed.num_outputs, j += num_outputs) {
          (*target)[j] = source[i];
        }
      };
      copy(packed.qweight, &joined.qweight);
      copy(packed.alpha, &joined.alpha);
      copy(packed.beta, &joined.beta);
    });
  }
  return joined;
}

absl::StatusOr<std::vector<float>> ReadJoinedValues(const ArtifactReader& reader,
                                                    const SplitTensor& tensor,
                                                    SafetensorsDType* dtype) {
  int64_t size = 1;
  for (const int64_t dimension : tensor.shape) size *= dimension;
  std::vector<float> values(size);
  for (const SplitTensor::Part& part : tensor.parts) {
    std::vector<float> own(part.spec->num_elements());
    if (part.packed != nullptr) {
      UQ_ASSIGN_OR_RETURN(const PackedLinear packed, reader.ReadPacked(part.module));
      Dequantize(packed, own.data());
    } else {
      // A stored tensor that is one part, and nothing but named otherwise, keeps its name.
      const bool whole = part.spec->stored.IsPlain();
      const std::string name = whole ? tensor.name : part.module + ".weight";
      UQ_ASSIGN_OR_RETURN(const auto shard, reader.FindShard(name));
      UQ_ASSIGN_OR_RETURN(const TensorInfo info, shard->Find(name));
      if (info.num_elements() != static_cast<int64_t>(own.size())) {
        return InvalidInput("INVALID_ARTIFACT",
                            absl::StrCat("tensor ", name, " has ", info.num_elements(),
                                         " elements, config.json implies ", own.size()));
      }
      UQ_RETURN_IF_ERROR(shard->ReadFloat(info, own.data()));
      *dtype = info.dtype;
    }
    part.spec->Scatter(own.data(), values.data());
  }
  return values;
}

}  // namespace uniquanf
