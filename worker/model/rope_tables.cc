#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/model_config.h"

namespace uniquanf {

namespace {

constexpr double kPi = 3.14159265358979323846;

double Llama3Frequency(const RopeConfig& rope, double frequency) {
  const double wavelength = 2 * kPi / frequency;
  const double original = rope.original_max_position_embeddings;
  if (wavelength > original / rope.low_freq_factor) return frequency / rope.factor;
  if (wavelength < original / rope.high_freq_factor ||
      rope.high_freq_factor <= rope.low_freq_factor) {
    return frequency;
  }
  // Between the two bounds the scaling fades in.
  const double smooth = (original / wavelength - rope.low_freq_factor) /
                        (rope.high_freq_factor - rope.low_freq_factor);
  return (1 - smooth) * frequency / rope.factor + smooth * frequency;
}

// How much of frequency i yarn scales: from 0 at its first bound to 1 at its second.
double YarnRamp(const RopeConfig& rope, int i) {
  const auto bound = [&](double rotations) {
    return rope.width * std::log(rope.original_max_position_embeddings / (rotations * 2 * kPi)) /
           (2 * std::log(rope.theta));
  };
  double low = bound(rope.beta_fast), high = bound(rope.beta_slow);
  if (rope.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::max(low, 0.0);
  high = std::min(high, rope.width - 1.0);
  if (low == high) high += 0.001;
  return std::clamp((i - low) / (high - low), 0.0, 1.0);
}

}  // namespace

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope, int64_t seq_len) {
  std::vector<double> frequencies(rope.width / 2);
  double theta = rope.theta;
  const double stretch = static_cast<double>(seq_len) / rope.original_max_position_embeddings;
  if (rope.type == "dynamic" && stretch > 1 && rope.width > 2) {
    theta *= std::pow(rope.factor * stretch - (rope.factor - 1), rope.width / (rope.width - 2.0));
  }
  const std::vector<double>& factors = stretch > 1 ? rope.long_factor : rope.short_factor;
  for (int i = 0; i < rope.width / 2; ++i) {
    double frequency = std::pow(theta, -2.0 * i / rope.width);
    if (rope.type == "linear") frequency /= rope.factor;
    if (rope.type == "llama3") frequency = Llama3Frequency(rope, frequency);
    if (rope.type == "longrope") frequency /= factors[i];
    if (rope.type == "proportional") frequency = i < rope.rotated ? frequency / rope.factor : 0;
    if (rope.type == "yarn") {
      const double ramp = YarnRamp(rope, i);
      frequency = frequency * (1 - ramp) + frequency / rope.factor * ramp;
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

namespace {

absl::StatusOr<RopeTable> MakeTable(Backend* backend, const RopeConfig& rope, int64_t seq_len) {
  const std::vector<double> frequencies = RopeInverseFrequencies(rope, seq_len);
  const bool is_long = static_cast<double>(seq_len) > rope.original_max_position_embeddings;
  const double factor = is_long && rope.long_attention_factor != 0 ? rope.long_attention_factor
                                                                   : rope.attention_factor;
  const int64_t half = rope.width / 2;
  std::vector<float> cosines(seq_len * half), sines(seq_len * half);
  for (int64_t position = 0; position < seq_len; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      cosines[position * half + i] = static_cast<float>(factor * std::cos(angle));
      sines[position * half + i] = static_cast<float>(factor * std::sin(angle));
    }
  }
  RopeTable table;
  const Shape shape = {seq_len, half};
  UQ_ASSIGN_OR_RETURN(table.cos,
                      Tensor::FromFloats(backend, DType::kFloat32, shape, cosines.data()));
  UQ_ASSIGN_OR_RETURN(table.sin, Tensor::FromFloats(backend, DType::kFloat32, shape, sines.data()));
  return table;
}

}  // namespace

absl::StatusOr<RopeTables> MakeRopeTables(Backend* backend, const std::vector<RopeConfig>& ropes,
                                          int64_t seq_len) {
  RopeTables tables;
  for (const RopeConfig& rope : ropes) {
    UQ_ASSIGN_OR_RETURN(RopeTable table, MakeTable(backend, rope, seq_len));
    tables.push_back(std::move(table));
  }
  return tables;
}

uint64_t RopeTablesBytes(const std::vector<RopeConfig>& ropes, int64_t seq_len) {
  uint64_t bytes = 0;
  for (const RopeConfig& rope : ropes) bytes += seq_len * rope.width * sizeof(float);
  return bytes;
}

}  // namespace uniquanf
