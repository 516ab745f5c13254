// Products from packed weights on every device against float64.
#include "worker/packed/packed_linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "tests/unit/worker/packed/packed_fixture.h"

namespace uniquanf::packed {
namespace {

struct Device {
  const char* name;
  DeviceKind kind;
  DType act;
};

class PackedLinearTest : public testing::TestWithParam<Device> {
 protected:
  void SetUp() override {
    if (GetParam().kind == DeviceKind::kCpu) {
      backend_ = NewCpuBackend({});
      return;
    }
    if (NumCudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
    auto cuda = NewCudaBackend(0);
    ASSERT_TRUE(cuda.ok()) << cuda.status();
    backend_ = *std::move(cuda);
  }

  Tensor Put(const std::vector<float>& values, uniquanf::Shape shape) {
    return *Tensor::FromFloats(backend_.get(), GetParam().act, std::move(shape), values.data());
  }
  // A tensor of NaN: what is not written shows.
  Tensor Poisoned(uniquanf::Shape shape) {
    Tensor tensor = *Tensor::Allocate(backend_.get(), GetParam().act, std::move(shape));
    const std::vector<float> values(tensor.num_elements(), NAN);
    EXPECT_TRUE(tensor.CopyFromFloats(values.data()).ok());
    return tensor;
  }

  // y for `tokens` tokens; checks it against the reference.
  void Check(const Shape4& shape, int64_t tokens, bool with_bias = false) {
    SCOPED_TRACE(absl::StrCat(shape.bits, " bits, ", shape.num_outputs, " x ", shape.num_inputs,
                              ", groups of ", shape.group_size, ", ", tokens, " tokens"));
    const PackedLinear layer = RandomLayer(shape, 7 * shape.bits + shape.num_outputs);
    const std::vector<float> inputs = RandomInputs(tokens * shape.num_inputs, 11);
    const PackedWeights weights = *Upload(backend_.get(), layer);
    Workspace workspace =
        *Workspace::Create(backend_.get(), GetParam().act, shape.num_outputs, shape.num_inputs);
    const Tensor x = Put(inputs, {tokens, shape.num_inputs});
    Tensor y = Poisoned({tokens, shape.num_outputs});
    const std::vector<float> bias = RandomInputs(shape.num_outputs, 13);
    const Tensor bias_tensor =
        *Tensor::FromFloats(backend_.get(), DType::kFloat32, {shape.num_outputs}, bias.data());
    LinearForward(backend_.get(), x, {{&weights, with_bias ? &bias_tensor : nullptr, &y}},
                  &workspace);
    Expected expected = Reference(layer, layer.bits, layer.alpha, layer.beta, inputs);
    for (int64_t i = 0; with_bias && i < tokens * shape.num_outputs; ++i) {
      expected.y[i] += bias[i % shape.num_outputs];
      expected.magnitude[i] += std::abs(bias[i % shape.num_outputs]);
    }
    const std::vector<float> result = *y.ToFloats();
    const int64_t wrong = FirstWrong(result, expected, GetParam().act, shape.num_inputs);
    EXPECT_EQ(wrong, -1) << result[wrong] << " instead of " << expected.y[wrong];
  }

  std::unique_ptr<Backend> backend_;
};

// Shapes that reach every path: whole vectors and tails of rows, groups of words, parts of words
// and rows, columns that are no multiple of 32, rows split over blocks.
constexpr struct {
  int64_t num_outputs, num_inputs, group_size;
} kShapes[] = {
    {128, 256, 256}, {300, 512, 64}, {67, 96, 32},     {16, 160, 160},   {33, 100, 20},
    {5, 30, 30},     {64, 96, 48},   {260, 2048, 128}, {36, 8192, 8192}, {40, 4128, 4128},
};

TEST_P(PackedLinearTest, DecodesEveryNumberOfBitsAndGroupSize) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto& s : kShapes) Check({bits, s.num_outputs, s.num_inputs, s.group_size}, 1);
  }
}

TEST_P(PackedLinearTest, PrefillsEveryNumberOfBitsAndGroupSize) {
  for (int bits = 2; bits <= 8; ++bits) {
    for (const auto& s : kShapes) Check({bits, s.num_outputs, s.num_inputs, s.group_size}, 20);
  }
}

TEST_P(PackedLinearTest, FewTokensAndBias) {
  for (int64_t tokens : {1, 2, 3, 8, 9, 16, 17}) {
    Check({3, 96, 256, 64}, tokens, /*with_bias=*/true);
  }
}

TEST_P(PackedLinearTest, OneLaunchForSeveralLayersGivesWhatEachAloneGives) {
  const Shape4 shapes[] = {
      {4, 256, 512, 128}, {4, 64, 512, 128}, {4, 100, 512, 128}, {3, 64, 512, 512}};
  const Tensor x = Put(RandomInputs(512, 3), {1, 512});
  Workspace workspace = *Workspace::Create(backend_.get(), GetParam().act, 256, 512);
  std::vector<PackedWeights> weights;
  std::vector<Tensor> together, alone;
  for (const Shape4& shape : shapes) {
    weights.push_back(*Upload(backend_.get(), RandomLayer(shape, shape.num_outputs)));
    together.push_back(Poisoned({1, shape.num_outputs}));
    alone.push_back(Poisoned({1, shape.num_outputs}));
  }
  std::vector<Product> products;
  for (int i = 0; i < 4; ++i) products.push_back({&weights[i], nullptr, &together[i]});
  LinearForward(backend_.get(), x, products, &workspace);
  for (int i = 0; i < 4; ++i) {
    LinearForward(backend_.get(), x, {{&weights[i], nullptr, &alone[i]}}, &workspace);
    const std::vector<float> a = *together[i].ToFloats(), b = *alone[i].ToFloats();
    for (size_t r = 0; r < a.size(); ++r) ASSERT_NEAR(a[r], b[r], 1e-2 * std::abs(b[r]) + 1e-5);
  }
}

TEST_P(PackedLinearTest, RepeatedProductsHaveTheSameBits) {
  const Shape4 shape{4, 1024, 4096, 4096};
  const PackedWeights weights = *Upload(backend_.get(), RandomLayer(shape, 5));
  const Tensor x = Put(RandomInputs(4096, 3), {1, 4096});
  Workspace workspace = *Workspace::Create(backend_.get(), GetParam().act, 1024, 4096);
  std::vector<float> first;
  for (int i = 0; i < 20; ++i) {
    Tensor y = Poisoned({1, 1024});
    LinearForward(backend_.get(), x, {{&weights, nullptr, &y}}, &workspace);
    const std::vector<float> result = *y.ToFloats();
    if (i == 0) first = result;
    ASSERT_EQ(0, std::memcmp(first.data(), result.data(), first.size() * sizeof(float)));
  }
}

TEST_P(PackedLinearTest, NestedPrecisionsUseTheFirstPlanes) {
  const PackedLinear layer = RandomLayer({4, 96, 128, 64}, 1);
  for (int bits = 2; bits <= 4; ++bits) {
    const PackedLinear scales = RandomLayer({bits, 96, 128, 64}, 40 + bits);
    for (int64_t tokens : {1, 40}) {
      const std::vector<float> inputs = RandomInputs(tokens * 128, 2);
      const PackedWeights weights =
          *UploadNested(backend_.get(), layer, bits, scales.alpha, scales.beta);
      Workspace workspace = *Workspace::Create(backend_.get(), GetParam().act, 96, 128);
      Tensor y = Poisoned({tokens, 96});
      LinearForward(backend_.get(), Put(inputs, {tokens, 128}), {{&weights, nullptr, &y}},
                    &workspace);
      const Expected expected = Reference(layer, bits, scales.alpha, scales.beta, inputs);
      EXPECT_EQ(FirstWrong(*y.ToFloats(), expected, GetParam().act, 128), -1) << bits;
    }
  }
}

TEST_P(PackedLinearTest, DequantizedRowsAreTheStoredWeights) {
  for (const auto& s : kShapes) {
    const PackedLinear layer = RandomLayer({3, s.num_outputs, s.num_inputs, s.group_size}, 9);
    const PackedWeights weights = *Upload(backend_.get(), layer);
    const int64_t first = s.num_outputs / 3, end = s.num_outputs;
    std::vector<float> stored((end - first) * s.num_inputs);
    uniquanf::DequantizeRows(layer, first, end, stored.data());
    const Tensor rounded = Put(stored, {end - first, s.num_inputs});
    Tensor out = Poisoned({end - first, s.num_inputs});
    DequantizeRows(backend_.get(), weights, first, end, &out);
    EXPECT_EQ(*out.ToFloats(), *rounded.ToFloats()) << s.num_outputs << " x " << s.num_inputs;
  }
}

TEST_P(PackedLinearTest, HoldsThePlanesAndScalesAndNoMore) {
  const uint64_t before = backend_->memory().allocated_bytes;
  const PackedWeights weights = *Upload(backend_.get(), RandomLayer({3, 512, 1024, 128}, 9));
  const uint64_t held = backend_->memory().allocated_bytes - before;
  EXPECT_EQ(weights.size_bytes(), 512u * 1024 * 3 / 8 + 512 * 8 * 4 * 2);
  EXPECT_LE(held, weights.size_bytes() + 3 * 512);  // the allocator's rounding
}

INSTANTIATE_TEST_SUITE_P(Devices, PackedLinearTest,
                         testing::Values(Device{"Cpu", DeviceKind::kCpu, DType::kFloat32},
                                         Device{"CudaF32", DeviceKind::kCuda, DType::kFloat32},
                                         Device{"CudaBf16", DeviceKind::kCuda, DType::kBfloat16}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace uniquanf::packed
