#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "common/base/random.h"
#include "tests/unit/worker/ops/reference.h"

namespace uniquanf {
namespace {

using namespace reference;  // NOLINT: the whole file compares against it

class ElementwiseTest : public testing::TestWithParam<DeviceCase> {
 protected:
  // StepParams live in device memory.
  Tensor UploadParams(const ops::StepParams& params) {
    Tensor tensor =
        *Tensor::Allocate(backend_.get(), DType::kUint8, {static_cast<int64_t>(sizeof(params))});
    EXPECT_TRUE(backend_->CopyFromHost(tensor.data(), &params, sizeof(params)).ok());
    return tensor;
  }
  static const ops::StepParams* Params(const Tensor& tensor) {
    return static_cast<const ops::StepParams*>(tensor.data());
  }

  std::unique_ptr<Backend> backend_ = MakeBackend(GetParam().kind);
  DType act_ = GetParam().act;
};

TEST_P(ElementwiseTest, SwiGluMatchesReference) {
  for (int64_t count : {1, 7, 33, 40000}) {
    const Tensor gate = Upload(backend_.get(), act_, {1, count}, RandomFloats(count, 1, 4.0));
    const Tensor up = Upload(backend_.get(), act_, {1, count}, RandomFloats(count, 2));
    const Tensor dy = Upload(backend_.get(), act_, {1, count}, RandomFloats(count, 3));
    Tensor y = Empty(backend_.get(), act_, {1, count});
    ops::SwiGluForward(backend_.get(), gate, up, &y);
    ExpectClose(Values(y), SwiGlu(Values(gate), Values(up)), act_, 4, "y");
    Tensor dgate = Empty(backend_.get(), act_, {1, count});
    Tensor dup = Empty(backend_.get(), act_, {1, count});
    ops::SwiGluBackward(backend_.get(), dy, gate, up, &dgate, &dup);
    Vector expected_dgate, expected_dup;
    SwiGluGradient(Values(dy), Values(gate), Values(up), &expected_dgate, &expected_dup);
    ExpectClose(Values(dgate), expected_dgate, act_, 8, "dgate");
    ExpectClose(Values(dup), expected_dup, act_, 4, "dup");
  }
}

TEST_P(ElementwiseTest, SwiGluIsFiniteAtTheEndsOfTheRange) {
  const std::vector<float> extremes = {-1e30f, -200.0f, -89.0f, 0.0f, 89.0f, 200.0f, 1e30f};
  const Tensor gate = Upload(backend_.get(), act_, {1, 7}, extremes);
  const Tensor up = Upload(backend_.get(), act_, {1, 7}, std::vector<float>(7, 1.0f));
  Tensor y = Empty(backend_.get(), act_, {1, 7}), dgate = Empty(backend_.get(), act_, {1, 7});
  Tensor dup = Empty(backend_.get(), act_, {1, 7});
  ops::SwiGluForward(backend_.get(), gate, up, &y);
  ops::SwiGluBackward(backend_.get(), up, gate, up, &dgate, &dup);
  for (const Tensor* tensor : {&y, &dgate, &dup}) {
    for (double value : Values(*tensor)) EXPECT_TRUE(std::isfinite(value));
  }
}

TEST_P(ElementwiseTest, AddMayAliasAnInput) {
  const std::vector<float> a = RandomFloats(20001, 1), b = RandomFloats(20001, 2);
  Tensor left = Upload(backend_.get(), act_, {20001}, a);
  const Tensor right = Upload(backend_.get(), act_, {20001}, b);
  Vector expected = Values(left);
  const Vector addend = Values(right);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] += addend[i];
  Tensor out = Empty(backend_.get(), act_, {20001});
  ops::Add(backend_.get(), left, right, &out);
  ExpectClose(Values(out), expected, act_, 1, "out");
  ops::Add(backend_.get(), left, right, &left);
  EXPECT_EQ(Values(left), Values(out));
}

TEST_P(ElementwiseTest, RopeMatchesReferenceAndInverseUndoesIt) {
  for (int64_t d : {32, 64, 80, 96, 128, 256}) {
    for (int64_t seq_len : {1, 7, 33}) {
      const int64_t batch = 3, heads = 3, half = d / 2, t = batch * seq_len;
      std::vector<float> cosines, sines;
      for (float angle : RandomFloats(seq_len * half, 9, 3.0)) {
        cosines.push_back(std::cos(angle));
        sines.push_back(std::sin(angle));
      }
      const Tensor cos = Upload(backend_.get(), DType::kFloat32, {seq_len, half}, cosines);
      const Tensor sin = Upload(backend_.get(), DType::kFloat32, {seq_len, half}, sines);
      Tensor x = Upload(backend_.get(), act_, {t, heads * d}, RandomFloats(t * heads * d, 1));
      const Vector before = Values(x);
      ops::Rope(backend_.get(), cos, sin, heads, false, &x);
      ExpectClose(Values(x),
                  reference::Rope(before, Values(cos), Values(sin), seq_len, half, heads, false),
                  act_, 2, "rotated");
      ops::Rope(backend_.get(), cos, sin, heads, true, &x);
      ExpectClose(Values(x), before, act_, 4, "rotated back");
    }
  }
}

TEST_P(ElementwiseTest, MixInputsDrawsFromPhilox) {
  const int64_t sequences = 5, seq_len = 7, hidden = 33;  // 231 elements: quads straddle sequences
  const int64_t per_sequence = seq_len * hidden;
  const Shape shape = {sequences, seq_len, hidden};
  const std::vector<float> q(sequences * per_sequence, 1.0f), fp(sequences * per_sequence, 0.0f);
  const Tensor x_q = Upload(backend_.get(), act_, shape, q);
  const Tensor x_fp = Upload(backend_.get(), act_, shape, fp);
  ops::StepParams params = {};
  params.draw = 17;
  const int batch = 3;
  params.sequence_index[0] = 4;
  params.sequence_index[1] = 0;
  params.sequence_index[2] = 2;
  const Tensor device_params = UploadParams(params);
  for (double prob : {0.0, 0.3, 1.0}) {
    Tensor out = Empty(backend_.get(), act_, {batch * seq_len, hidden});
    ops::MixInputs(backend_.get(), Params(device_params), 1234, prob, &x_q, x_fp, batch, &out);
    const Vector values = Values(out);
    for (size_t i = 0; i < values.size(); ++i) {
      const uint32_t u = PhiloxAt(1234, params.draw, i / 4).v[i % 4];
      ASSERT_EQ(values[i], u < BernoulliThreshold(prob) ? 1.0 : 0.0) << i << " prob " << prob;
    }
  }
}

TEST_P(ElementwiseTest, MixInputsGathersTheNamedSequences) {
  const int64_t sequences = 4, seq_len = 9, hidden = 40, per_sequence = seq_len * hidden;
  const Shape shape = {sequences, seq_len, hidden};
  const Tensor x_fp =
      Upload(backend_.get(), act_, shape, RandomFloats(sequences * per_sequence, 1));
  ops::StepParams params = {};
  params.sequence_index[0] = 3;
  params.sequence_index[1] = 1;
  const Tensor device_params = UploadParams(params);
  Tensor out = Empty(backend_.get(), act_, {2 * seq_len, hidden});
  ops::MixInputs(backend_.get(), Params(device_params), 1, 0.5, nullptr, x_fp, 2, &out);
  const Vector all = Values(x_fp), values = Values(out);
  for (int64_t i = 0; i < per_sequence; ++i) {
    ASSERT_EQ(values[i], all[3 * per_sequence + i]);
    ASSERT_EQ(values[per_sequence + i], all[per_sequence + i]);
  }
}

TEST_P(ElementwiseTest, MseLossMatchesReference) {
  const int64_t sequences = 4, seq_len = 129, hidden = 192, per_sequence = seq_len * hidden;
  const Tensor targets = Upload(backend_.get(), act_, {sequences, seq_len, hidden},
                                RandomFloats(sequences * per_sequence, 1));
  ops::StepParams params = {};
  params.sequence_index[0] = 2;
  params.sequence_index[1] = 0;
  params.sequence_index[2] = 2;
  const Tensor device_params = UploadParams(params);
  for (int batch : {1, 3}) {
    const int64_t count = batch * per_sequence;
    const Tensor y =
        Upload(backend_.get(), act_, {batch * seq_len, hidden}, RandomFloats(count, 2));
    Tensor scratch = Empty(backend_.get(), DType::kUint8,
                           {static_cast<int64_t>(ops::MseLossScratchBytes(*backend_, count))});
    Tensor dy = Empty(backend_.get(), act_, {batch * seq_len, hidden});
    Tensor loss = Empty(backend_.get(), DType::kFloat32, {1});
    ops::MseLoss(backend_.get(), Params(device_params), y, targets, batch, /*num_parts=*/1,
                 &scratch, &dy, &loss);
    const Vector outputs = Values(y), all = Values(targets);
    Vector expected_dy(count);
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) {
      const int64_t sequence = params.sequence_index[i / per_sequence];
      const double difference = outputs[i] - all[sequence * per_sequence + i % per_sequence];
      sum += difference * difference;
      expected_dy[i] = 2 * difference / count;
    }
    ExpectClose(Values(dy), expected_dy, act_, 2, "dy");
    EXPECT_NEAR(Values(loss)[0], sum / count, 1e-6 * sum / count);

    // A fourth of a step: the gradient of the step's mean, the loss its own.
    ops::MseLoss(backend_.get(), Params(device_params), y, targets, batch, /*num_parts=*/4,
                 &scratch, &dy, &loss);
    for (double& gradient : expected_dy) gradient /= 4;
    ExpectClose(Values(dy), expected_dy, act_, 2, "dy of a part");
    EXPECT_NEAR(Values(loss)[0], sum / count, 1e-6 * sum / count);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, ElementwiseTest, testing::ValuesIn(DeviceCases()),
                         [](const auto& info) { return DeviceCaseName(info.param); });

}  // namespace
}  // namespace uniquanf
