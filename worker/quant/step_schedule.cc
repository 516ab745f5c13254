#include "worker/quant/step_schedule.h"

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

#include "common/base/random.h"

namespace uniquanf::quant {

std::vector<int64_t> EpochOrder(uint64_t seed, int64_t epoch, int64_t num_sequences, bool shuffle) {
  std::vector<int64_t> order(num_sequences);
  std::iota(order.begin(), order.end(), 0);
  if (!shuffle) return order;
  const uint64_t stream = (uint64_t{1} << 63) + static_cast<uint64_t>(epoch);
  for (int64_t i = num_sequences - 1; i > 0; --i) {
    const Philox4 words = PhiloxAt(seed, stream, static_cast<uint64_t>(i));
    const uint64_t r = words.v[0] | static_cast<uint64_t>(words.v[1]) << 32;
    __extension__ using Wide = unsigned __int128;
    const auto j = static_cast<int64_t>((static_cast<Wide>(r) * static_cast<Wide>(i + 1)) >> 64);
    std::swap(order[i], order[j]);
  }
  return order;
}

StepSchedule::StepSchedule(const ReconstructOptions& options, int64_t num_sequences,
                           bool direct_mapping)
    : options_(options),
      num_sequences_(num_sequences),
      direct_mapping_(direct_mapping),
      end_step_(options.end_step < 0 ? options.num_steps : options.end_step),
      step_(options.first_step),
      position_(options.first_step * options.batch_size) {}

ops::StepParams StepSchedule::Next() {
  ops::StepParams params = {};
  for (int i = 0; i < options_.batch_size; ++i, ++position_) {
    const int64_t place = position_ % num_sequences_;
    if (place == 0 || order_.empty()) {
      order_ =
          EpochOrder(options_.seed, position_ / num_sequences_, num_sequences_, options_.shuffle);
    }
    params.sequence_index[i] = order_[place];
  }
  params.draw = static_cast<uint64_t>(step_);
  const double cosine = (1 + std::cos(std::numbers::pi * static_cast<double>(step_) /
                                      static_cast<double>(options_.num_steps))) /
                        2;
  params.uniform_learning_rate = static_cast<float>(options_.uniform_learning_rate * cosine);
  params.binary_learning_rate = static_cast<float>(options_.binary_learning_rate * cosine);
  const auto num_updates = static_cast<double>(step_ + 1);
  params.bias_correction1 = static_cast<float>(1 - std::pow(0.9, num_updates));
  params.bias_correction2 = static_cast<float>(1 - std::pow(0.999, num_updates));
  Mapping mapping =
      direct_mapping_ ? Mapping::kDirect : MappingForPass(step_ + 2, options_.remap_period);
  if (step_ + 1 == end_step_) mapping = Mapping::kKeep;
  params.mapping = static_cast<int32_t>(mapping);
  ++step_;
  return params;
}

}  // namespace uniquanf::quant
