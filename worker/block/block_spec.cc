#include "worker/block/block_spec.h"

#include <algorithm>
#include <limits>

namespace uniquanf {

int64_t TensorSpec::num_elements() const {
  int64_t count = 1;
  for (int64_t dim : shape) count *= dim;
  return count;
}

void TensorSpec::ForEachRow(const std::function<void(int64_t, int64_t, int64_t)>& visit) const {
  const int64_t num_rows = shape.empty() ? 1 : shape[0], width = row_width();
  int64_t part = 1;  // elements of the stored tensor, or of an expert's part of it
  for (size_t d = stored.expert < 0 ? 0 : 1; d < stored.shape.size(); ++d) part *= stored.shape[d];
  const int64_t first = stored.expert < 0 ? 0 : stored.expert * part;
  for (int64_t r = 0; r < num_rows; ++r) {
    const int64_t row =
        stored.row_run == 0
            ? r
            : stored.row_offset + r / stored.row_run * stored.row_period + r % stored.row_run;
    if (stored.transposed) {
      visit(r * width, first + row, stored.shape.back());
    } else {
      visit(r * width, first + row * width, 1);
    }
  }
}

std::pair<int64_t, int64_t> TensorSpec::StoredRange() const {
  int64_t low = std::numeric_limits<int64_t>::max(), high = 0;
  ForEachRow([&](int64_t, int64_t at, int64_t step) {
    low = std::min(low, at);
    high = std::max(high, at + (row_width() - 1) * step + 1);
  });
  return {low, high};
}

void TensorSpec::Gather(const float* stored_values, int64_t first_stored, float* values) const {
  const int64_t width = row_width();
  ForEachRow([&](int64_t to, int64_t at, int64_t step) {
    const float* from = stored_values + (at - first_stored);
    for (int64_t i = 0; i < width; ++i) values[to + i] = from[i * step];
  });
}

void TensorSpec::Scatter(const float* values, float* stored_values) const {
  const int64_t width = row_width();
  ForEachRow([&](int64_t from, int64_t at, int64_t step) {
    for (int64_t i = 0; i < width; ++i) stored_values[at + i * step] = values[from + i];
  });
}

int BlockSpec::FindLinear(absl::string_view module) const {
  for (int l = 0; l < num_linears(); ++l) {
    if (linear(l).module == module) return l;
  }
  return -1;
}

int BlockSpec::FindTensor(absl::string_view stored_name) const {
  for (size_t t = 0; t < tensors.size(); ++t) {
    if (tensors[t].stored.name == stored_name) return static_cast<int>(t);
  }
  return -1;
}

bool BlockSpec::capturable() const {
  return std::none_of(nodes.begin(), nodes.end(),
                      [](const Node& node) { return std::holds_alternative<ExpertsNode>(node); });
}

int BlockSpec::AddTensor(TensorSpec tensor) {
  const int index = static_cast<int>(tensors.size());
  if (tensor.role == TensorRole::kLinear) linears.push_back(index);
  tensors.push_back(std::move(tensor));
  return index;
}

int BlockSpec::AddSlot(int64_t width) {
  slots.push_back(width);
  return static_cast<int>(slots.size()) - 1;
}

}  // namespace uniquanf
