#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/base/status.h"
#include "worker/model/model_config.h"

namespace uniquanf {

std::vector<double> RopeInverseFrequencies(const RopeConfig& rope) {
  constexpr double kPi = 3.14159265358979323846;
  std::vector<double> frequencies(rope.width / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double frequency = std::pow(rope.theta, -2.0 * static_cast<double>(i) / rope.width);
    if (rope.type == "linear") frequency /= rope.factor;
    if (rope.type == "llama3") {
      const double wavelength = 2 * kPi / frequency;
      const double original = rope.original_max_position_embeddings;
      if (wavelength > original / rope.low_freq_factor) {
        frequency /= rope.factor;
      } else if (wavelength >= original / rope.high_freq_factor) {
        // Between the two bounds the scaling fades in.
        const double smooth = (original / wavelength - rope.low_freq_factor) /
                              (rope.high_freq_factor - rope.low_freq_factor);
        frequency = (1 - smooth) * frequency / rope.factor + smooth * frequency;
      }
    }
    frequencies[i] = frequency;
  }
  return frequencies;
}

namespace {

absl::StatusOr<RopeTable> MakeTable(Backend* backend, const RopeConfig& rope, int64_t seq_len) {
  const std::vector<double> frequencies = RopeInverseFrequencies(rope);
  const int64_t half = rope.width / 2;
  std::vector<float> cosines(seq_len * half), sines(seq_len * half);
  for (int64_t position = 0; position < seq_len; ++position) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(position) * frequencies[i];
      cosines[position * half + i] = static_cast<float>(rope.attention_factor * std::cos(angle));
      sines[position * half + i] = static_cast<float>(rope.attention_factor * std::sin(angle));
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
