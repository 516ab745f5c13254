#include "worker/packed/packed_linear.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/status.h"
#include "worker/packed/packed_cpu.h"
#if defined(UNIQUANF_HAVE_CUDA)
#include "worker/packed/packed_cuda.h"
#endif

namespace uniquanf::packed {
namespace {

#if defined(UNIQUANF_HAVE_CUDA)
#define UQ_DISPATCH(backend, call) ((backend)->kind() == DeviceKind::kCuda ? cuda::call : cpu::call)
#else
#define UQ_DISPATCH(backend, call) cpu::call
#endif

constexpr int64_t kMaxSliceBytes = int64_t{32} << 20;
// Rows of ŵ that a slice holds at least, so that products stay matrices.
constexpr int64_t kMinSliceRows = 128;

absl::StatusOr<Tensor> UploadHalves(Backend* backend, absl::Span<const uint16_t> values,
                                    Shape shape) {
  shape.push_back(2);
  UQ_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(backend, DType::kUint8, std::move(shape)));
  UQ_CHECK(tensor.size_bytes() == values.size() * sizeof(uint16_t));
  UQ_RETURN_IF_ERROR(backend->CopyFromHost(tensor.data(), values.data(), tensor.size_bytes()));
  return tensor;
}

void CheckProduct(const Backend* backend, const Tensor& x, const Product& product) {
  const PackedWeights& w = *product.weights;
  UQ_CHECK(w.planes.backend() == backend && product.y->backend() == backend);
  UQ_CHECK(w.bits >= kMinPackedBits && w.bits <= w.num_planes && w.num_planes <= kMaxPackedBits);
  UQ_CHECK(x.shape().back() == w.num_inputs && product.y->shape().back() == w.num_outputs);
  UQ_CHECK(x.num_elements() / w.num_inputs == product.y->num_elements() / w.num_outputs);
  UQ_CHECK(product.y->dtype() == x.dtype());
  if (product.bias == nullptr) return;
  UQ_CHECK(product.bias->dtype() == DType::kFloat32 &&
           product.bias->num_elements() == w.num_outputs);
}

}  // namespace

absl::StatusOr<PackedWeights> UploadNested(Backend* backend, const PackedLinear& layer, int bits,
                                           absl::Span<const uint16_t> alpha,
                                           absl::Span<const uint16_t> beta) {
  UQ_CHECK(bits >= kMinPackedBits && bits <= layer.bits);
  PackedWeights weights;
  weights.bits = bits;
  weights.num_planes = layer.bits;
  weights.num_outputs = layer.num_outputs;
  weights.num_inputs = layer.num_inputs;
  weights.group_size = layer.group_size;
  UQ_ASSIGN_OR_RETURN(weights.planes,
                      Tensor::Allocate(backend, DType::kInt32,
                                       {weights.num_words(), layer.bits, layer.num_outputs}));
  UQ_RETURN_IF_ERROR(backend->CopyFromHost(weights.planes.data(), layer.qweight.data(),
                                           weights.planes.size_bytes()));
  UQ_ASSIGN_OR_RETURN(
      weights.alpha, UploadHalves(backend, alpha, {weights.num_groups(), bits, layer.num_outputs}));
  UQ_ASSIGN_OR_RETURN(weights.beta,
                      UploadHalves(backend, beta, {weights.num_groups(), layer.num_outputs}));
  return weights;
}

absl::StatusOr<PackedWeights> Upload(Backend* backend, const PackedLinear& layer) {
  return UploadNested(backend, layer, layer.bits, layer.alpha, layer.beta);
}

absl::StatusOr<Workspace> Workspace::Create(Backend* backend, DType act, int64_t max_outputs,
                                            int64_t max_inputs) {
  Workspace workspace;
  if (backend->kind() == DeviceKind::kCpu) return workspace;
  const auto bytes = static_cast<int64_t>(DTypeBytes(act));
  const int64_t slice =
      std::min(max_outputs * max_inputs,
               std::max(kMaxSliceBytes / bytes, std::min(max_outputs, kMinSliceRows) * max_inputs));
  UQ_ASSIGN_OR_RETURN(workspace.slice, Tensor::Allocate(backend, act, {slice}));
#if defined(UNIQUANF_HAVE_CUDA)
  UQ_ASSIGN_OR_RETURN(workspace.partial, Tensor::Allocate(backend, DType::kFloat32,
                                                          {kMaxProducts * cuda::kMaxSplits *
                                                           (max_outputs + cuda::kBlockRows)}));
  UQ_ASSIGN_OR_RETURN(workspace.tickets,
                      Tensor::Allocate(backend, DType::kInt32,
                                       {kMaxProducts * (max_outputs / cuda::kBlockRows + 1)}));
  UQ_RETURN_IF_ERROR(backend->FillZero(workspace.tickets.data(), workspace.tickets.size_bytes()));
#endif
  return workspace;
}

void LinearForward(Backend* backend, const Tensor& x, absl::Span<const Product> products,
                   Workspace* workspace) {
  UQ_CHECK(!products.empty() && products.size() <= kMaxProducts);
  for (const Product& product : products) CheckProduct(backend, x, product);
  const int64_t num_tokens = x.num_elements() / x.shape().back();
  if (num_tokens <= MaxDecodeTokens(*backend)) {
    UQ_DISPATCH(backend, Decode(backend, x, products, workspace));
    return;
  }
  for (const Product& product : products) {
    UQ_DISPATCH(backend, Prefill(backend, x, product, workspace));
  }
}

void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out) {
  UQ_CHECK(0 <= first_row && first_row < end_row && end_row <= weights.num_outputs);
  UQ_CHECK(out->num_elements() >= (end_row - first_row) * weights.num_inputs);
  UQ_DISPATCH(backend, DequantizeRows(backend, weights, first_row, end_row, out));
}

int64_t MaxDecodeTokens(const Backend& backend) {
  // Where reading the planes once a token costs as much as dequantizing them once (RESULTS.md).
  return backend.kind() == DeviceKind::kCuda ? 8 : 16;
}

#undef UQ_DISPATCH

}  // namespace uniquanf::packed
