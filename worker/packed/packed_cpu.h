// The CPU implementation of packed_linear.h, and its kernels for single rows of the table look-up.
//
// Look-up. The columns of a word are cut into eight runs of four; run c has a table of the 16 sums
// ((±x0 ± x1) ± x2) ± x3, bit j of the index set where x_j is added. A word of a plane then is
// eight look-ups and additions. Lanes of a vector are rows, so a row's sum has one order whatever
// the vector's width: scalar, AVX2 and AVX-512 kernels give the same bits.
#ifndef UNIQUANF_WORKER_PACKED_PACKED_CPU_H_
#define UNIQUANF_WORKER_PACKED_PACKED_CPU_H_

#include <cstdint>
#include <vector>

#include "worker/packed/packed_linear.h"

namespace uniquanf::packed::cpu {

inline constexpr int kRunsPerWord = 8, kTableEntries = 16;
inline constexpr int64_t kTableFloatsPerWord = kRunsPerWord * kTableEntries;

// Consecutive words that belong to one group. A word that a group's border cuts belongs to several
// segments, with the other groups' columns of x taken as 0.
struct Segment {
  int64_t group, first_word, num_words;
  int64_t first_column, end_column;
  int64_t first_table;  // in words
};
// Words a segment at most: its sums are added to y when it ends, which keeps f32 sums short.
inline constexpr int64_t kMaxSegmentWords = 32;
std::vector<Segment> MakeSegments(int64_t num_inputs, int64_t group_size);
// tables [words of all segments, 8, 16] and sums [segments] (Σ x of the segment) for one token.
void MakeTables(const std::vector<Segment>& segments, const float* x, float* tables, float* sums);

struct RowArgs {
  const PackedWeights* weights = nullptr;
  const std::vector<Segment>* segments = nullptr;
  const float* tables = nullptr;
  const float* sums = nullptr;
  float* y = nullptr;  // [N]; rows first..end are overwritten
};
enum class Kernel { kScalar, kAvx2, kAvx512 };
// The fastest that this processor runs.
Kernel BestKernel();
bool KernelRuns(Kernel kernel);
// y[first..end) for one token.
void DecodeRows(Kernel kernel, const RowArgs& args, int64_t first, int64_t end);

void Decode(Backend* backend, const Tensor& x, absl::Span<const Product> products,
            Workspace* workspace);
void Prefill(Backend* backend, const Tensor& x, const Product& product, Workspace* workspace);
void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out);

}  // namespace uniquanf::packed::cpu

#endif  // UNIQUANF_WORKER_PACKED_PACKED_CPU_H_
