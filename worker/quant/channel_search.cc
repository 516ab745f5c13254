#include "worker/quant/channel_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "common/base/parallel.h"
#include "common/base/status.h"
#include "worker/ops/op.h"
#include "worker/quant/uniform_grids.h"

namespace uniquanf::quant {
namespace {

constexpr int kNumRatios = 20;

// tr(D M Dᵀ), D [N, K] on the host, M on the device.
absl::StatusOr<double> Energy(Backend* backend, DType act, const Shape& shape,
                              const std::vector<float>& d, const Tensor& m) {
  UQ_ASSIGN_OR_RETURN(const Tensor left, Tensor::FromFloats(backend, act, shape, d.data()));
  UQ_ASSIGN_OR_RETURN(Tensor product, Tensor::Allocate(backend, act, shape));
  ops::LinearForward(backend, left, m, nullptr, &product);
  UQ_ASSIGN_OR_RETURN(const std::vector<float> p, product.ToFloats());
  std::vector<double> rows(shape[0]);
  ParallelRanges(shape[0], 16, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      for (int64_t k = row * shape[1]; k < (row + 1) * shape[1]; ++k) {
        rows[row] += static_cast<double>(d[k]) * p[k];
      }
    }
  });
  double sum = 0;
  for (const double row : rows) sum += row;
  return std::max(sum, 0.0);
}

// What scaling costs: W − Q(W s)/s.
std::vector<float> Difference(const std::vector<float>& weights, int64_t width,
                              const ScaledLinear& linear, Levels levels, const FoldSite& site,
                              const std::vector<float>& scales) {
  std::vector<float> scale_of(width), scaled(weights.size());
  for (int64_t k = 0; k < width; ++k) scale_of[k] = scales[site.ChannelOf(k)];
  const auto num_rows = static_cast<int64_t>(weights.size()) / width;
  for (int64_t i = 0; i < num_rows * width; ++i) scaled[i] = weights[i] * scale_of[i % width];
  const std::vector<UniformGrid> grids =
      FindGrids(scaled, width, linear.bits, linear.group_size, levels, /*search=*/false, {});
  const float last_code = static_cast<float>((1 << linear.bits) - 1);
  ParallelRanges(num_rows, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * width; i < end * width; ++i) {
      const UniformGrid& grid = grids[i / linear.group_size];
      scaled[i] = weights[i] - grid.Value(grid.Code(scaled[i], last_code)) / scale_of[i % width];
    }
  });
  return scaled;
}

std::vector<float> ScalesFor(const std::vector<double>& sizes, int step) {
  const double ratio = static_cast<double>(step) / kNumRatios;
  std::vector<double> raw(sizes.size());
  double least = std::numeric_limits<double>::infinity(), largest = 0;
  for (size_t c = 0; c < sizes.size(); ++c) {
    raw[c] = std::pow(std::max(sizes[c], 1e-4), ratio);
    least = std::min(least, raw[c]);
    largest = std::max(largest, raw[c]);
  }
  const double middle = std::sqrt(least * largest);
  std::vector<float> scales(sizes.size());
  for (size_t c = 0; c < sizes.size(); ++c) scales[c] = static_cast<float>(raw[c] / middle);
  return scales;
}

}  // namespace

absl::StatusOr<std::vector<float>> SearchScales(Backend* backend, DType act, Levels levels,
                                                const FoldSite& site, const ScaledBlock& block,
                                                const std::vector<ScaledLinear>& linears) {
  std::vector<double> sizes(site.num_channels);
  std::vector<Tensor> moments;
  std::vector<double> energies;
  for (const ScaledLinear& linear : linears) {
    const InputMoments& own = *linear.moments;
    for (int64_t k = 0; k < own.width; ++k) {
      sizes[site.ChannelOf(k)] += own.matrix[k * own.width + k];
    }
    UQ_ASSIGN_OR_RETURN(
        Tensor m, Tensor::FromFloats(backend, act, {own.width, own.width}, own.matrix.data()));
    const Shape& shape = block.spec->tensors[linear.tensor].shape;
    UQ_ASSIGN_OR_RETURN(const double energy,
                        Energy(backend, act, shape, block.values(linear.tensor), m));
    moments.push_back(std::move(m));
    energies.push_back(energy);
  }
  const double largest = *std::max_element(sizes.begin(), sizes.end());
  std::vector<float> best(site.num_channels, 1.0f);
  if (!(largest > 0)) return best;
  for (double& size : sizes) size = std::sqrt(size / largest);
  double least = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= kNumRatios; ++step) {
    const std::vector<float> scales = ScalesFor(sizes, step);
    double error = 0;
    for (size_t i = 0; i < linears.size(); ++i) {
      if (!(energies[i] > 0)) continue;
      const Shape& shape = block.spec->tensors[linears[i].tensor].shape;
      UQ_ASSIGN_OR_RETURN(const double own,
                          Energy(backend, act, shape,
                                 Difference(block.values(linears[i].tensor), shape[1], linears[i],
                                            levels, site, scales),
                                 moments[i]));
      error += own / energies[i];
    }
    if (error < least) {
      least = error;
      best = scales;
    }
  }
  return best;
}

}  // namespace uniquanf::quant
