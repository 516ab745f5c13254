// Results must have the same bytes whatever the number of threads.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using reference::Empty;
using reference::RandomFloats;
using reference::Upload;

// Outputs of every op that sums, on a backend with `num_threads` threads.
std::vector<std::vector<float>> RunOps(int num_threads) {
  std::unique_ptr<Backend> owner = NewCpuBackend({.num_threads = num_threads});
  Backend* backend = owner.get();
  std::vector<std::vector<float>> results;
  auto keep = [&](const Tensor& tensor) { results.push_back(*tensor.ToFloats()); };
  constexpr DType kF32 = DType::kFloat32;
  const int64_t t = 600, n = 300, k = 192;

  const Tensor x = Upload(backend, kF32, {t, k}, RandomFloats(t * k, 1));
  const Tensor w = Upload(backend, kF32, {n, k}, RandomFloats(n * k, 2));
  const Tensor dy = Upload(backend, kF32, {t, n}, RandomFloats(t * n, 3));
  const Tensor bias = Upload(backend, kF32, {n}, RandomFloats(n, 4));
  Tensor y = Empty(backend, kF32, {t, n}), dx = Empty(backend, kF32, {t, k});
  Tensor dw = Empty(backend, kF32, {n, k});
  ops::LinearForward(backend, x, w, &bias, &y);
  ops::LinearBackwardInput(backend, dy, w, false, &dx);
  ops::LinearBackwardWeight(backend, dy, x, /*accumulate=*/false, &dw);
  for (const Tensor* tensor : {&y, &dx, &dw}) keep(*tensor);

  ops::AttentionShape shape;
  shape.seq_len = t;
  shape.num_heads = 6;
  shape.num_kv_heads = 2;
  shape.head_dim = 32;
  shape.scale = static_cast<float>(1 / std::sqrt(32.0));
  const Tensor key = Upload(backend, kF32, {t, 64}, RandomFloats(t * 64, 5));
  const Tensor value = Upload(backend, kF32, {t, 64}, RandomFloats(t * 64, 6));
  const Tensor dout = Upload(backend, kF32, {t, k}, RandomFloats(t * k, 7));
  Tensor out = Empty(backend, kF32, {t, k}), lse = Empty(backend, kF32, {1, 6, t});
  Tensor dq = Empty(backend, kF32, {t, k}), dk = Empty(backend, kF32, {t, 64});
  Tensor dv = Empty(backend, kF32, {t, 64});
  Tensor scratch =
      Empty(backend, DType::kUint8,
            {static_cast<int64_t>(ops::AttentionBackwardScratchBytes(*backend, shape))});
  ops::AttentionForward(backend, shape, x, key, value, &out, &lse);
  ops::AttentionBackward(backend, shape, dout, x, key, value, out, lse, &scratch, &dq, &dk, &dv);
  for (const Tensor* tensor : {&out, &lse, &dq, &dk, &dv}) keep(*tensor);

  ops::StepParams params = {};
  const Tensor targets = Upload(backend, kF32, {1, t, n}, RandomFloats(t * n, 8));
  Tensor loss = Empty(backend, kF32, {1}), dloss = Empty(backend, kF32, {t, n});
  Tensor loss_scratch = Empty(backend, DType::kUint8,
                              {static_cast<int64_t>(ops::MseLossScratchBytes(*backend, t * n))});
  ops::MseLoss(backend, &params, y, targets, 1, 1, &loss_scratch, &dloss, &loss);
  Tensor nll = Empty(backend, kF32, {t});
  ops::CrossEntropy(backend, y, reference::UploadInts(backend, std::vector<int32_t>(t, 5)), &nll);
  for (const Tensor* tensor : {&loss, &dloss, &nll}) keep(*tensor);
  return results;
}

TEST(ThreadCountTest, OpsGiveTheSameBytes) {
  const auto one = RunOps(1);
  EXPECT_EQ(one, RunOps(2));
  EXPECT_EQ(one, RunOps(3));
}

// y, dx and dw of a linear layer.
std::vector<std::vector<float>> RunLinear(int num_threads, int64_t t, int64_t n, int64_t k) {
  std::unique_ptr<Backend> owner = NewCpuBackend({.num_threads = num_threads});
  Backend* backend = owner.get();
  constexpr DType kF32 = DType::kFloat32;
  const Tensor x = Upload(backend, kF32, {t, k}, RandomFloats(t * k, 1));
  const Tensor w = Upload(backend, kF32, {n, k}, RandomFloats(n * k, 2));
  const Tensor dy = Upload(backend, kF32, {t, n}, RandomFloats(t * n, 3));
  Tensor y = Empty(backend, kF32, {t, n});
  Tensor dx = Upload(backend, kF32, {t, k}, RandomFloats(t * k, 4));
  Tensor dw = Empty(backend, kF32, {n, k});
  ops::LinearForward(backend, x, w, nullptr, &y);
  ops::LinearBackwardInput(backend, dy, w, /*accumulate=*/true, &dx);
  ops::LinearBackwardWeight(backend, dy, x, /*accumulate=*/false, &dw);
  return {*y.ToFloats(), *dx.ToFloats(), *dw.ToFloats()};
}

// The sizes of the pieces that products are cut into follow the number of threads, so every size is
// reached by one of these. Ragged sizes, ones with few columns (OpenBLAS's small products) and more
// columns than a piece has. The kernel is the processor's, or the one that OPENBLAS_CORETYPE names.
TEST(ThreadCountTest, ProductsGiveTheSameBytesInPiecesOfAnySize) {
  const struct {
    int64_t t, n, k;
  } kShapes[] = {{512, 256, 256}, {512, 704, 256}, {512, 256, 704}, {512, 128, 256},
                 {333, 700, 333}, {192, 512, 320}, {256, 300, 256}, {769, 129, 65},
                 {1186, 17, 230}, {850, 7, 591},   {640, 1100, 96}, {2050, 256, 64},
                 {65, 512, 512},  {1023, 96, 1030}};
  for (const auto& [t, n, k] : kShapes) {
    const auto one = RunLinear(1, t, n, k);
    for (const int num_threads : {2, 3, 4, 8}) {
      EXPECT_EQ(one, RunLinear(num_threads, t, n, k))
          << t << " x " << n << " x " << k << ", " << num_threads << " threads";
    }
  }
}

}  // namespace
}  // namespace uniquanf
