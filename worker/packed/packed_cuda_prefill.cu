// Weights back from bit planes, a slice at a time, and products with it.
#include <cuda_fp16.h>

#include <algorithm>

#include "worker/backend/cuda_device.cuh"
#include "worker/backend/cuda_matmul.h"
#include "worker/packed/packed_cuda.h"

namespace uniquanf::packed::cuda {
namespace {

using namespace uniquanf::cuda;  // device helpers; NOLINT(build/namespaces)

constexpr int kTileRows = 32, kTileWords = 8;

// A block makes 32 rows × 256 columns: a warp a word, a lane a row, so that planes are read along
// rows; the tile passes through shared memory and is written along columns.
template <int kBits, typename Act>
__global__ __launch_bounds__(kTileWords *
                             32) void DequantizeKernel(const uint32_t* planes, const __half* alpha,
                                                       const __half* beta, int num_planes,
                                                       int64_t num_outputs, int num_inputs,
                                                       int group_size, int64_t first_row,
                                                       int64_t end_row, Act* out) {
  // 2 elements more a row: lanes that write one column of 32 rows fall into different banks.
  __shared__ Act tile[kTileRows][kTileWords * 32 + 2];
  const int warp = threadIdx.x >> 5, lane = threadIdx.x & 31;
  const int64_t row = first_row + static_cast<int64_t>(blockIdx.x) * kTileRows + lane;
  const int first_column = static_cast<int>(blockIdx.y) * kTileWords * 32;
  const int word = static_cast<int>(blockIdx.y) * kTileWords + warp;
  if (row < end_row && word * 32 < num_inputs) {
    uint32_t bits[kBits];
    float a[kBits], b = 0.f;
    int border = 0;  // the column where the next group begins
#pragma unroll
    for (int i = 0; i < kBits; ++i) {
      bits[i] = planes[(static_cast<int64_t>(word) * num_planes + i) * num_outputs + row];
    }
    for (int k = 0; k < 32; ++k) {
      if (word * 32 + k >= num_inputs) break;
      if (k == 0 || word * 32 + k == border) {
        const int group = (word * 32 + k) / group_size;
        border = (group + 1) * group_size;
#pragma unroll
        for (int i = 0; i < kBits; ++i) {
          a[i] = __half2float(alpha[(static_cast<int64_t>(group) * kBits + i) * num_outputs + row]);
        }
        b = __half2float(beta[static_cast<int64_t>(group) * num_outputs + row]);
      }
      float level = (bits[0] >> k) & 1u ? a[0] : -a[0];
#pragma unroll
      for (int i = 1; i < kBits; ++i) level += (bits[i] >> k) & 1u ? a[i] : -a[i];
      tile[lane][warp * 32 + k] = FromFloat<Act>(level + b);
    }
  }
  __syncthreads();
  const int columns = min(kTileWords * 32, num_inputs - first_column);
  const int rows =
      static_cast<int>(min(static_cast<int64_t>(kTileRows),
                           end_row - first_row - static_cast<int64_t>(blockIdx.x) * kTileRows));
  for (int r = warp; r < rows; r += kTileWords) {
    Act* to = out + (static_cast<int64_t>(blockIdx.x) * kTileRows + r) * num_inputs + first_column;
    for (int k = lane; k < columns; k += 32) to[k] = tile[r][k];
  }
}

template <typename Act>
void Dequantize(CudaBackend* cuda, const PackedWeights& w, int64_t first_row, int64_t end_row,
                Act* out) {
  const dim3 grid(static_cast<unsigned>(CeilDiv(end_row - first_row, kTileRows)),
                  static_cast<unsigned>(CeilDiv(w.num_inputs, kTileWords * 32)));
  const auto launch = [&]<int kBits>() {
    DequantizeKernel<kBits, Act><<<grid, kTileWords * 32, 0, cuda->stream()>>>(
        reinterpret_cast<const uint32_t*>(w.planes.i32()),
        reinterpret_cast<const __half*>(w.alpha.u8()), reinterpret_cast<const __half*>(w.beta.u8()),
        w.num_planes, w.num_outputs, static_cast<int>(w.num_inputs), static_cast<int>(w.group_size),
        first_row, end_row, out);
    cuda->NoteLaunch();
  };
  switch (w.bits) {
    case 2:
      return launch.template operator()<2>();
    case 3:
      return launch.template operator()<3>();
    case 4:
      return launch.template operator()<4>();
    case 5:
      return launch.template operator()<5>();
    case 6:
      return launch.template operator()<6>();
    case 7:
      return launch.template operator()<7>();
    default:
      UQ_CHECK(w.bits == 8);
      return launch.template operator()<8>();
  }
}

template <typename Act>
__global__ void AddBiasKernel(const float* bias, int64_t count, int num_outputs, Act* y) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) y[i] = FromFloat<Act>(ToFloat(y[i]) + bias[i % num_outputs]);
}

}  // namespace

void Prefill(Backend* backend, const Tensor& x, const Product& product, Workspace* workspace) {
  CudaBackend* cuda = CudaBackend::From(backend);
  const PackedWeights& w = *product.weights;
  const int64_t num_tokens = x.num_elements() / w.num_inputs;
  const int64_t slice_rows =
      std::min(w.num_outputs, workspace->slice.num_elements() / w.num_inputs);
  UQ_CHECK(slice_rows > 0 && workspace->slice.dtype() == x.dtype());
  DispatchAct(x.dtype(), [&](auto act) {
    using Act = decltype(act);
    for (int64_t row = 0; row < w.num_outputs; row += slice_rows) {
      const int64_t end = std::min(w.num_outputs, row + slice_rows);
      Dequantize<Act>(cuda, w, row, end, Data<Act>(&workspace->slice));
      cuda->NoteMatmul(
          cuda->matmul().Multiply(x.dtype(), x.dtype(), false, true, num_tokens, end - row,
                                  w.num_inputs, x.data(), workspace->slice.data(), false,
                                  Data<Act>(product.y) + row, cuda->stream(), w.num_outputs));
    }
    if (product.bias == nullptr) return;
    const int64_t count = product.y->num_elements();
    constexpr int kThreads = 256;
    AddBiasKernel<Act>
        <<<static_cast<unsigned>(CeilDiv(count, kThreads)), kThreads, 0, cuda->stream()>>>(
            product.bias->f32(), count, static_cast<int>(w.num_outputs), Data<Act>(product.y));
    cuda->NoteLaunch();
  });
}

void DequantizeRows(Backend* backend, const PackedWeights& weights, int64_t first_row,
                    int64_t end_row, Tensor* out) {
  DispatchAct(out->dtype(), [&](auto act) {
    using Act = decltype(act);
    Dequantize<Act>(CudaBackend::From(backend), weights, first_row, end_row, Data<Act>(out));
  });
}

}  // namespace uniquanf::packed::cuda
