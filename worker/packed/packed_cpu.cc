#include "worker/packed/packed_cpu.h"

#include <algorithm>
#include <cstring>

#include "common/base/check.h"
#include "common/safetensors/float_conversion.h"
#include "worker/backend/cpu_backend.h"
#include "worker/backend/vector_math.h"
#include "worker/ops/op_cpu_gemm.h"

namespace uniquanf::packed::cpu {
namespace {

using ops::cpu::GemmArgs;
using ops::cpu::ParallelChunks;
using ops::cpu::ThreadScratch;

// Rows that a thread makes at a time, decoding: a multiple of every vector, whole cache lines.
constexpr int64_t kDecodeRows = 64;
// Prefill: a tile of weights that stays in the second-level cache, [kTileColumns, kTileRows] f32.
constexpr int64_t kTileRows = 256, kTileColumns = 512;

const uint16_t* Halves(const Tensor& tensor) {
  return reinterpret_cast<const uint16_t*>(tensor.u8());
}

// level[r] = ((±α_0 ± α_1) …) + β for `rows` rows; alpha [bits][kTileRows], bit `bit` of
// words[i·stride + r] is the sign. The order of FORMAT.md, "Arithmetic".
UQ_VECTOR_CLONES
void Levels(const uint32_t* words, int64_t stride, int bits, int bit, int64_t rows,
            const float* alpha, const float* beta, float* level) {
  for (int64_t r = 0; r < rows; ++r) {
    level[r] = (words[r] >> bit) & 1u ? alpha[r] : -alpha[r];
  }
  for (int i = 1; i < bits; ++i) {
    const uint32_t* plane = words + i * stride;
    const float* a = alpha + i * kTileRows;
    for (int64_t r = 0; r < rows; ++r) level[r] += (plane[r] >> bit) & 1u ? a[r] : -a[r];
  }
  for (int64_t r = 0; r < rows; ++r) level[r] += beta[r];
}

// tile[k − first_column][r] (rows `rows` apart) = ŵ[row + r, k].
void DequantizeTile(const PackedWeights& w, int64_t row, int64_t rows, int64_t first_column,
                    int64_t end_column, float* tile) {
  const int64_t N = w.num_outputs;
  const auto* planes = reinterpret_cast<const uint32_t*>(w.planes.i32());
  float alpha[kMaxPackedBits * kTileRows], beta[kTileRows];
  int64_t loaded_group = -1;
  for (int64_t k = first_column; k < end_column; ++k) {
    const int64_t group = k / w.group_size;
    if (group != loaded_group) {
      loaded_group = group;
      for (int i = 0; i < w.bits; ++i) {
        const uint16_t* source = Halves(w.alpha) + (group * w.bits + i) * N + row;
        for (int64_t r = 0; r < rows; ++r) alpha[i * kTileRows + r] = Float16ToFloat(source[r]);
      }
      const uint16_t* source = Halves(w.beta) + group * N + row;
      for (int64_t r = 0; r < rows; ++r) beta[r] = Float16ToFloat(source[r]);
    }
    Levels(planes + k / 32 * w.num_planes * N + row, N, w.bits, static_cast<int>(k % 32), rows,
           alpha, beta, tile + (k - first_column) * rows);
  }
}

}  // namespace

void Decode(Backend* backend, const Tensor& x, absl::Span<const Product> products,
            Workspace* /*workspace*/) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const int64_t num_inputs = x.shape().back(), num_tokens = x.num_elements() / num_inputs;
  std::vector<Segment> segments;
  std::vector<float> tables, sums;
  int64_t group_size = 0, table_floats = 0;
  for (const Product& product : products) {
    const PackedWeights& w = *product.weights;
    if (w.group_size != group_size) {
      group_size = w.group_size;
      segments = MakeSegments(num_inputs, group_size);
      table_floats =
          (segments.back().first_table + segments.back().num_words) * kTableFloatsPerWord;
      tables.resize(num_tokens * table_floats);
      sums.resize(num_tokens * segments.size());
      for (int64_t t = 0; t < num_tokens; ++t) {
        MakeTables(segments, x.f32() + t * num_inputs, tables.data() + t * table_floats,
                   sums.data() + t * segments.size());
      }
    }
    ParallelChunks(cpu, w.num_outputs, kDecodeRows, [&](int64_t first, int64_t end) {
      for (int64_t t = 0; t < num_tokens; ++t) {
        RowArgs args;
        args.weights = &w;
        args.segments = &segments;
        args.tables = tables.data() + t * table_floats;
        args.sums = sums.data() + t * segments.size();
        args.y = product.y->f32() + t * w.num_outputs;
        DecodeRows(BestKernel(), args, first, end);
        if (product.bias == nullptr) continue;
        const float* bias = product.bias->f32();
        for (int64_t row = first; row < end; ++row) args.y[row] += bias[row];
      }
    });
  }
}

void Prefill(Backend* backend, const Tensor& x, const Product& product, Workspace* /*workspace*/) {
  CpuBackend* cpu = CpuBackend::From(backend);
  const PackedWeights& w = *product.weights;
  const int64_t num_tokens = x.num_elements() / w.num_inputs;
  ParallelChunks(cpu, w.num_outputs, kTileRows, [&](int64_t first, int64_t end) {
    const int64_t rows = end - first;
    float* tile = ThreadScratch(kTileRows * kTileColumns);
    if (product.bias != nullptr) {
      for (int64_t t = 0; t < num_tokens; ++t) {
        std::memcpy(product.y->f32() + t * w.num_outputs + first, product.bias->f32() + first,
                    rows * sizeof(float));
      }
    }
    for (int64_t column = 0; column < w.num_inputs; column += kTileColumns) {
      const int64_t end_column = std::min(w.num_inputs, column + kTileColumns);
      DequantizeTile(w, first, rows, column, end_column, tile);
      GemmArgs args;
      args.m = num_tokens;
      args.n = rows;
      args.k = end_column - column;
      args.a = x.f32() + column;
      args.lda = w.num_inputs;
      args.b = tile;
      args.ldb = rows;
      args.beta = column == 0 && product.bias == nullptr ? 0.0f : 1.0f;
      args.c = product.y->f32() + first;
      args.ldc = w.num_outputs;
      ops::cpu::Sgemm(cpu, args);
    }
  });
}

void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out) {
  const int64_t K = weights.num_inputs;
  ParallelChunks(CpuBackend::From(backend), end_row - first_row, kTileRows,
                 [&](int64_t first, int64_t end) {
                   const int64_t rows = end - first;
                   float* tile = ThreadScratch(kTileRows * kTileColumns);
                   for (int64_t column = 0; column < K; column += kTileColumns) {
                     const int64_t end_column = std::min(K, column + kTileColumns);
                     DequantizeTile(weights, first_row + first, rows, column, end_column, tile);
                     for (int64_t r = 0; r < rows; ++r) {
                       float* to = out->f32() + (first + r) * K;
                       for (int64_t k = column; k < end_column; ++k) {
                         to[k] = tile[(k - column) * rows + r];
                       }
                     }
                   }
                 });
}

}  // namespace uniquanf::packed::cpu
