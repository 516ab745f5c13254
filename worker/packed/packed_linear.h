// Linear layers straight from the stored form (common/artifact/FORMAT.md): products that read the
// bit planes, so that a model needs its packed size in memory and no more.
//
// Two ways, chosen by the number of tokens T. Decoding (few tokens) sums ±x by table look-up and
// reads each plane once; prefill dequantizes a slice of the weights, which stays in the cache, and
// multiplies by it. Any bits (2 to 8), any group size, and nested precisions: a layer stored with
// n planes can be used with its first p, given the scale factors of that precision.
//
// Arithmetic. Decoding: y[r] = Σ_groups (Σ_i α_i · S_i + β · Σ x), S_i = Σ_k ±x[k], in f32 and in a
// fixed order. On the CPU the bits depend neither on the number of threads nor on the instruction
// set; on CUDA they depend on the device's number of multiprocessors. Prefill: the product of
// worker/ops with the weights that common/artifact's Dequantize gives, rounded to the activation
// type.
// Thread safety: as Backend. Ownership: weights and workspace own device memory, the Backend
// outlives them. Errors: kResourceExhausted from allocations; wrong shapes are bugs and CHECK-fail.
#ifndef UNIQUANF_WORKER_PACKED_PACKED_LINEAR_H_
#define UNIQUANF_WORKER_PACKED_PACKED_LINEAR_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "common/artifact/layout.h"
#include "worker/backend/tensor.h"

namespace uniquanf::packed {

// One layer's planes and scales on a device.
struct PackedWeights {
  int bits = 0;        // p: planes that are used, the first p of those stored
  int num_planes = 0;  // n: planes stored, p <= n
  int64_t num_outputs = 0, num_inputs = 0, group_size = 0;
  Tensor planes;  // i32 [ceil(K/32), n, N]
  Tensor alpha;   // fp16 in a u8 tensor [G, p, N, 2]
  Tensor beta;    // fp16 in a u8 tensor [G, N, 2]

  int64_t num_words() const { return (num_inputs + 31) / 32; }
  int64_t num_groups() const { return num_inputs / group_size; }
  // Device memory held.
  size_t size_bytes() const { return planes.size_bytes() + alpha.size_bytes() + beta.size_bytes(); }
};

// Copies a layer to the device.
absl::StatusOr<PackedWeights> Upload(Backend* backend, const PackedLinear& layer);
// The same at a lower precision of a nested layer: all of `layer`'s planes are stored, the first
// `bits` used, with that precision's alpha (fp16 [G, bits, N]) and beta (fp16 [G, N]).
absl::StatusOr<PackedWeights> UploadNested(Backend* backend, const PackedLinear& layer, int bits,
                                           absl::Span<const uint16_t> alpha,
                                           absl::Span<const uint16_t> beta);

// Device memory that the products need besides their operands; one may serve all layers of a model.
class Workspace {
 public:
  // For layers of at most these widths. CPU: nothing. CUDA: partial sums, and a slice of
  // dequantized weights of at most 32 MiB (less where no layer is that large).
  static absl::StatusOr<Workspace> Create(Backend* backend, DType act, int64_t max_outputs,
                                          int64_t max_inputs);
  size_t size_bytes() const {
    return slice.size_bytes() + partial.size_bytes() + tickets.size_bytes();
  }
  Tensor slice;    // act [elements]
  Tensor partial;  // f32 [kMaxSplits, outputs]
  Tensor tickets;  // i32, one a block of rows; 0 between products
};

// y[T, N] = x[T, K] · ŵᵀ (+ bias[N] f32 when not null); x, y: act. More than one problem may share
// x: decoding on CUDA then makes them with one launch.
struct Product {
  const PackedWeights* weights = nullptr;
  const Tensor* bias = nullptr;
  Tensor* y = nullptr;
};
inline constexpr int kMaxProducts = 4;
void LinearForward(Backend* backend, const Tensor& x, absl::Span<const Product> products,
                   Workspace* workspace);

// Rows [first_row, end_row) of ŵ, as stored, rounded to out's type: out [end_row − first_row, K].
void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out);

// T up to which planes are read once a token instead of being dequantized.
int64_t MaxDecodeTokens(const Backend& backend);

}  // namespace uniquanf::packed

#endif  // UNIQUANF_WORKER_PACKED_PACKED_LINEAR_H_
