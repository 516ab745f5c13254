// Random tensors on a device and numerical gradients, for tests of ops on every device.
#ifndef UNIQUANF_TESTS_UNIT_WORKER_OPS_OPS_FIXTURE_H_
#define UNIQUANF_TESTS_UNIT_WORKER_OPS_OPS_FIXTURE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "tests/unit/worker/ops/reference.h"
#include "worker/ops/op.h"

namespace uniquanf::reference {

class OpsTest : public testing::TestWithParam<DeviceCase> {
 protected:
  Tensor Random(Shape shape, uint64_t seed, double deviation = 1.0) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    return Upload(backend_.get(), act_, std::move(shape), RandomFloats(count, seed, deviation));
  }
  Tensor Floats(Shape shape, uint64_t seed, double deviation = 1.0) {
    int64_t count = 1;
    for (int64_t dim : shape) count *= dim;
    return Upload(backend_.get(), DType::kFloat32, std::move(shape),
                  RandomFloats(count, seed, deviation));
  }
  Tensor Like(const Tensor& tensor) { return Empty(backend_.get(), act_, tensor.shape()); }

  // ⟨dy, f⟩'s derivative for x, by central differences.
  static Vector Gradient(const Vector& x, const Vector& dy,
                         const std::function<Vector(const Vector&)>& f) {
    Vector gradient(x.size()), moved = x;
    for (size_t i = 0; i < x.size(); ++i) {
      const double step = 1e-5;
      moved[i] = x[i] + step;
      const double up = Dot(dy, f(moved));
      moved[i] = x[i] - step;
      gradient[i] = (up - Dot(dy, f(moved))) / (2 * step);
      moved[i] = x[i];
    }
    return gradient;
  }

  std::unique_ptr<Backend> backend_ = reference::MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

}  // namespace uniquanf::reference

#endif  // UNIQUANF_TESTS_UNIT_WORKER_OPS_OPS_FIXTURE_H_
