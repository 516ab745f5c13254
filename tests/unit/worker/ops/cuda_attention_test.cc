// The two ways of the tensor-core backward pass: with the scores' gradients kept in scratch memory
// and, where that is too small, with the weights computed twice.
#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/worker/ops/reference.h"
#include "worker/ops/op_cuda.h"

namespace uniquanf {
namespace {

TEST(CudaAttentionTest, GradientsDoNotDependOnScratchMemory) {
  if (NumCudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
  std::unique_ptr<Backend> backend = reference::MakeBackend(DeviceKind::kCuda);
  for (int head_dim : {64, 80, 128, 256}) {
    for (int64_t window : {0, 70}) {
      SCOPED_TRACE(testing::Message() << "head size " << head_dim << ", window " << window);
      ops::AttentionShape shape;
      shape.batch = 2;
      shape.seq_len = 201;
      shape.num_heads = 4;
      shape.num_kv_heads = 2;
      shape.head_dim = head_dim;
      shape.window = window;
      shape.scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
      const Shape q_shape = {shape.batch * shape.seq_len, shape.num_heads * head_dim};
      const Shape kv_shape = {shape.batch * shape.seq_len, shape.num_kv_heads * head_dim};
      const auto random = [&](const Shape& s, uint64_t seed) {
        return reference::Upload(backend.get(), DType::kBfloat16, s,
                                 reference::RandomFloats(s[0] * s[1], seed));
      };
      const auto empty = [&](const Shape& s) {
        return reference::Empty(backend.get(), DType::kBfloat16, s);
      };
      Tensor q = random(q_shape, 1), k = random(kv_shape, 2), v = random(kv_shape, 3);
      Tensor dout = random(q_shape, 4), out = empty(q_shape);
      Tensor lse = reference::Empty(backend.get(), DType::kFloat32,
                                    {shape.batch, shape.num_heads, shape.seq_len});
      ops::cuda::AttentionForward(backend.get(), shape, q, k, v, &out, &lse);
      const auto all =
          static_cast<int64_t>(ops::cuda::AttentionBackwardScratchBytes(*backend, shape));
      reference::Vector first[3];
      for (int64_t bytes : {all, all - 1}) {
        auto scratch = Tensor::Allocate(backend.get(), DType::kUint8, {bytes});
        ASSERT_TRUE(scratch.ok());
        Tensor dq = empty(q_shape), dk = empty(kv_shape), dv = empty(kv_shape);
        ops::cuda::AttentionBackward(backend.get(), shape, dout, q, k, v, out, lse, &*scratch, &dq,
                                     &dk, &dv);
        const reference::Vector results[3] = {reference::Values(dq), reference::Values(dk),
                                              reference::Values(dv)};
        if (bytes == all) {
          std::copy(results, results + 3, first);
          continue;
        }
        reference::ExpectClose(results[0], first[0], DType::kBfloat16, 4, "dq");
        EXPECT_EQ(results[1], first[1]);
        EXPECT_EQ(results[2], first[2]);
      }
    }
  }
}

}  // namespace
}  // namespace uniquanf
