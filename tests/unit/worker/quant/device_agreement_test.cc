// The quantizer on CUDA does what it does on the CPU, for every number of bits and for group sizes
// that reach each of its kernels. Where a weight lies on the border between two levels the devices
// may choose differently, so codes are allowed to differ in a few places.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/artifact/layout.h"
#include "common/safetensors/float_conversion.h"
#include "worker/quant/compact_state.h"
#include "worker/quant/quantizer.h"
#include "worker/quant/start.h"

namespace uniquanf::quant {
namespace {

struct Case {
  int64_t num_outputs, num_inputs, group_size;
  int bits;
};

// Short groups of 4k weights (1, 2 and 4 pieces a thread, 4 to 32 threads), long ones, sizes that
// are not multiples of 4 or 32, and one too long to be kept in shared memory.
const Case kCases[] = {
    {33, 48, 16, 4},      {17, 100, 20, 3},     {9, 96, 48, 2},     {16, 1024, 128, 4},
    {8, 512, 256, 8},     {8, 512, 512, 5},     {5, 1536, 384, 6},  {5, 4096, 4096, 4},
    {7, 200, 200, 7},     {5, 1030, 1030, 4},   {6, 1030, 103, 3},  {3, 14336, 14336, 4},
    {2, 28672, 28672, 2}, {2, 60000, 60000, 3}, {3, 1000, 1000, 8}, {11, 17, 17, 4},
    {4, 11008, 11008, 8}, {130, 64, 64, 2},     {3, 2052, 2052, 5}, {64, 128, 32, 6},
};
constexpr uint64_t kSeed = 20240517;

std::vector<float> Random(int64_t count, double deviation, uint64_t seed) {
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal(0, deviation);
  std::vector<float> values(count);
  // Values that bf16 holds exactly, so that both element types see the same numbers.
  for (float& value : values) {
    value = Bfloat16ToFloat(FloatToBfloat16(static_cast<float>(normal(generator))));
  }
  return values;
}

// Element type on the device, and which of kCases: a test each, so that they can be run apart.
class DeviceAgreementTest : public testing::TestWithParam<std::tuple<DType, int>> {
 protected:
  void SetUp() override {
    if (NumCudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
    cpu_ = NewCpuBackend({});
    auto cuda = NewCudaBackend(0);
    ASSERT_TRUE(cuda.ok()) << cuda.status();
    cuda_ = *std::move(cuda);
  }

  static DType act() { return std::get<0>(GetParam()); }
  static int case_index() { return std::get<1>(GetParam()); }
  static const Case& the_case() { return kCases[case_index()]; }

  Tensor Upload(Backend* backend, const Shape& shape, const std::vector<float>& values) {
    const DType dtype = backend == cpu_.get() ? DType::kFloat32 : act();
    auto tensor = Tensor::FromFloats(backend, dtype, shape, values.data());
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *std::move(tensor);
  }
  QuantizerState NewState(Backend* backend, const Case& c, const std::vector<float>& weights,
                          OptimizerState optimizer_state = OptimizerState::kF32) {
    auto state = NewQuantizerState(backend, Upload(backend, {c.num_outputs, c.num_inputs}, weights),
                                   c.bits, c.group_size, {}, optimizer_state);
    EXPECT_TRUE(state.ok()) << state.status();
    state->rounding_seed = static_cast<uint32_t>(kSeed);
    return *std::move(state);
  }
  static std::vector<float> Download(const Tensor& tensor) {
    auto values = tensor.ToFloats();
    EXPECT_TRUE(values.ok()) << values.status();
    return *std::move(values);
  }
  static std::vector<uint8_t> Codes(const QuantizerState& state) {
    return CodesOf(state.weight.backend(), state).value();
  }
  // s2 without the codes that may lie in it.
  static std::vector<float> Scales(const QuantizerState& state) {
    std::vector<float> scales = Download(state.log_scale_weight);
    if (!state.packs_codes()) return scales;
    for (float& scale : scales) {
      scale = std::bit_cast<float>(std::bit_cast<uint32_t>(scale) & ~CodeMask(state.bits));
    }
    return scales;
  }
  static void CopyState(const QuantizerState& from, QuantizerState* to) {
    const std::pair<const Tensor*, Tensor*> pairs[] = {
        {&from.log_delta, &to->log_delta},
        {&from.log_scale_group, &to->log_scale_group},
        {&from.log_scale_weight, &to->log_scale_weight},
        {&from.alpha, &to->alpha},
        {&from.zero_point, &to->zero_point},
        {&from.shift, &to->shift},
        {&from.m_log_scale_weight, &to->m_log_scale_weight},
        {&from.v_log_scale_weight, &to->v_log_scale_weight},
    };
    for (const auto& [source, target] : pairs) {
      ASSERT_TRUE(target->CopyFromFloats(Download(*source).data()).ok());
    }
    if (from.packs_codes()) return;
    const std::vector<uint8_t> codes = Codes(from);
    ASSERT_TRUE(
        to->codes.backend()->CopyFromHost(to->codes.data(), codes.data(), codes.size()).ok());
  }

  // The fraction of elements off by more than tolerance · max |expected|.
  static double FractionOff(const std::vector<float>& actual, const std::vector<float>& expected,
                            double tolerance) {
    double largest = 0;
    for (float value : expected) largest = std::max(largest, std::fabs(static_cast<double>(value)));
    int64_t num_off = 0;
    for (size_t i = 0; i < actual.size(); ++i) {
      const double error = std::fabs(static_cast<double>(actual[i]) - expected[i]);
      if (!(error <= tolerance * largest)) ++num_off;
    }
    return static_cast<double>(num_off) / static_cast<double>(actual.size());
  }
  static double FractionOfCodesOff(const QuantizerState& a, const QuantizerState& b) {
    const std::vector<uint8_t> x = Codes(a), y = Codes(b);
    int64_t num_off = 0;
    for (size_t i = 0; i < x.size(); ++i) num_off += x[i] != y[i];
    return static_cast<double>(num_off) / static_cast<double>(x.size());
  }
  static double MeanSquaredError(const std::vector<float>& a, const std::vector<float>& b) {
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      sum += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
    }
    return sum / static_cast<double>(a.size());
  }

  void CheckGradientsAndSteps(OptimizerState optimizer_state);
  // ŵ and everything trained after some steps on the device.
  std::vector<float> RunSteps(OptimizerState optimizer_state);

  std::unique_ptr<Backend> cpu_, cuda_;
};

TEST_P(DeviceAgreementTest, InitializationsAgree) {
  const Case& c = the_case();
  SCOPED_TRACE(testing::Message() << c.num_outputs << "x" << c.num_inputs << " groups of "
                                  << c.group_size << ", " << c.bits << " bits, seed " << kSeed);
  const std::vector<float> weights =
      Random(c.num_outputs * c.num_inputs, 0.02, kSeed + case_index());
  QuantizerState on_cpu = NewState(cpu_.get(), c, weights);
  QuantizerState on_cuda = NewState(cuda_.get(), c, weights);
  const Shape shape = {c.num_outputs, c.num_inputs};
  Tensor cpu_w_hat = Upload(cpu_.get(), shape, weights);
  Tensor cuda_w_hat = Upload(cuda_.get(), shape, weights);
  for (int method = 0; method < 5; ++method) {
    SCOPED_TRACE(testing::Message() << "method " << method);
    for (auto [backend, state] :
         {std::pair<Backend*, QuantizerState*>{cpu_.get(), &on_cpu}, {cuda_.get(), &on_cuda}}) {
      if (method == 0) InitializeUnified(backend, {.grid_steps = 1}, state);
      if (method == 1) InitializeUnified(backend, {.grid_steps = 0}, state);
      if (method == 2) InitializeUnified(backend, {3, 0}, state);
      if (method == 3) InitializeUniform(backend, {.grid_steps = 5}, state);
      if (method == 4) InitializeAlternating(backend, {}, state);
    }
    Forward(cpu_.get(), Mapping::kDirect, &on_cpu, &cpu_w_hat);
    Forward(cuda_.get(), Mapping::kDirect, &on_cuda, &cuda_w_hat);
    ASSERT_TRUE(cuda_->Synchronize().ok());
    // A grid may hold two candidates of equal merit; without one Δ follows from the range.
    const double ties = method == 2 || method == 3 ? 0.1 : 0;
    EXPECT_LE(FractionOff(Download(on_cuda.log_delta), Download(on_cpu.log_delta), 1e-6), ties);
    EXPECT_LE(FractionOff(Download(on_cuda.zero_point), Download(on_cpu.zero_point), 1e-6), ties);
    // One weight on a border moves a fit a little; the fits' merit stays.
    EXPECT_LE(FractionOff(Download(on_cuda.alpha), Download(on_cpu.alpha), 2e-2), ties);
    EXPECT_LE(FractionOfCodesOff(on_cuda, on_cpu), 0.02 + ties);
    const double cpu_error = MeanSquaredError(Download(cpu_w_hat), weights);
    const double cuda_error = MeanSquaredError(Download(cuda_w_hat), weights);
    // ŵ in bf16 adds the rounding of values of about 0.02, three deviations out 0.06.
    const double rounding = act() == DType::kBfloat16 ? 4e-9 : 0;
    EXPECT_LE(cuda_error, cpu_error * 1.02 + rounding);
    EXPECT_GE(cuda_error, cpu_error * 0.98 - rounding);
  }
}

// Which grid wins may differ where two are about as good; its weighted error may not.
TEST_P(DeviceAgreementTest, ChosenStartsAreAsGood) {
  const Case& c = the_case();
  SCOPED_TRACE(testing::Message() << c.num_outputs << "x" << c.num_inputs << " groups of "
                                  << c.group_size << ", " << c.bits << " bits, seed " << kSeed);
  const Shape shape = {c.num_outputs, c.num_inputs};
  std::vector<float> weights = Random(c.num_outputs * c.num_inputs, 0.02, kSeed + case_index());
  for (int64_t row = 0; row < c.num_outputs; ++row) weights[row * c.num_inputs] *= 4;
  const std::vector<float> input = Random(40 * c.num_inputs, 1, kSeed + 1);
  std::vector<double> errors[2];
  for (const bool on_cuda : {false, true}) {
    Backend* const backend = on_cuda ? cuda_.get() : cpu_.get();
    const std::vector<float> zeros(c.num_inputs);
    Tensor sums =
        Tensor::FromFloats(backend, DType::kFloat32, {c.num_inputs}, zeros.data()).value();
    AddSquares(backend, Upload(backend, {40, c.num_inputs}, input), &sums);
    const std::vector<float> importance = Download(sums);
    for (int64_t k = 0; k < c.num_inputs; ++k) {
      double expected = 0;
      for (int t = 0; t < 40; ++t) {
        expected += static_cast<double>(input[t * c.num_inputs + k]) * input[t * c.num_inputs + k];
      }
      ASSERT_NEAR(importance[k], expected, 1e-4 * expected);
    }
    for (const UniformStarts allowed : {UniformStarts::kAll, UniformStarts::kWholeZeroPoints}) {
      QuantizerState state = NewState(backend, c, weights);
      if (allowed == UniformStarts::kAll) {
        InitializeUnified(backend, {}, &state);
      } else {
        InitializeUniform(backend, {}, &state);
      }
      ChooseStarts(backend, allowed, sums, &state);
      Tensor w_hat = Upload(backend, shape, weights);
      Forward(backend, Mapping::kKeep, &state, &w_hat);
      ASSERT_TRUE(backend->Synchronize().ok());
      const std::vector<float> now = Download(w_hat);
      double sum = 0;
      for (size_t i = 0; i < now.size(); ++i) {
        const double error = static_cast<double>(weights[i]) - now[i];
        sum += importance[i % c.num_inputs] * error * error;
      }
      errors[on_cuda].push_back(sum);
    }
  }
  // ŵ in bf16 is rounded by up to 2^-9 of itself.
  double rounding = 0;
  if (act() == DType::kBfloat16) {
    for (size_t i = 0; i < weights.size(); ++i) rounding += 40 * std::pow(weights[i] * 0x1p-9, 2);
  }
  for (size_t i = 0; i < errors[0].size(); ++i) {
    EXPECT_LE(errors[1][i], errors[0][i] * 1.02 + rounding);
    EXPECT_GE(errors[1][i], errors[0][i] * 0.98 - rounding);
  }
}

class ConstantGroupsTest : public DeviceAgreementTest {};

TEST_P(ConstantGroupsTest, StayFinite) {
  const Case c = {4, 256, 64, 4};
  std::vector<float> weights(c.num_outputs * c.num_inputs, 0.0f);
  for (int i = 256; i < 512; ++i) weights[i] = 0.30078125f;
  for (int i = 512; i < 768; ++i) weights[i] = i % 2 == 0 ? 3e38f : -3e38f;
  QuantizerState state = NewState(cuda_.get(), c, weights);
  InitializeUnified(cuda_.get(), {.grid_steps = 4}, &state);
  Tensor w_hat = Upload(cuda_.get(), {c.num_outputs, c.num_inputs}, weights);
  Forward(cuda_.get(), Mapping::kDirect, &state, &w_hat);
  for (const Tensor* tensor : {&state.log_delta, &state.zero_point, &state.shift, &state.alpha}) {
    for (float value : Download(*tensor)) ASSERT_TRUE(std::isfinite(value));
  }
  const std::vector<float> result = Download(w_hat);
  for (int i = 0; i < 512; ++i) ASSERT_NEAR(result[i], weights[i], 2e-3) << i;
}

void DeviceAgreementTest::CheckGradientsAndSteps(OptimizerState optimizer_state) {
  const Case& c = the_case();
  int index = 100 + 9 * case_index();  // of seeds, nine a case
  SCOPED_TRACE(testing::Message() << c.num_outputs << "x" << c.num_inputs << " groups of "
                                  << c.group_size << ", " << c.bits << " bits, seed " << kSeed);
  const int64_t count = c.num_outputs * c.num_inputs;
  const Shape shape = {c.num_outputs, c.num_inputs};
  const std::vector<float> weights = Random(count, 0.02, kSeed + index++);
  QuantizerState on_cpu = NewState(cpu_.get(), c, weights, optimizer_state);
  QuantizerState on_cuda = NewState(cuda_.get(), c, weights, optimizer_state);
  InitializeUnified(cpu_.get(), {}, &on_cpu);
  ASSERT_TRUE(
      on_cpu.log_scale_weight.CopyFromFloats(Random(count, 0.02, kSeed + index++).data()).ok());
  ASSERT_TRUE(on_cpu.log_scale_group
                  .CopyFromFloats(
                      Random(on_cpu.log_scale_group.num_elements(), 0.01, kSeed + index++).data())
                  .ok());
  CopyState(on_cpu, &on_cuda);
  Tensor cpu_w_hat = Upload(cpu_.get(), shape, weights);
  Tensor cuda_w_hat = Upload(cuda_.get(), shape, weights);
  Forward(cpu_.get(), Mapping::kDirect, &on_cpu, &cpu_w_hat);
  Forward(cuda_.get(), Mapping::kDirect, &on_cuda, &cuda_w_hat);
  EXPECT_LE(FractionOfCodesOff(on_cuda, on_cpu), 1e-3);
  const double act_tolerance = act() == DType::kBfloat16 ? 0x1p-8 : 1e-5;
  EXPECT_LE(FractionOff(Download(cuda_w_hat), Download(cpu_w_hat), act_tolerance), 1e-3);
  CopyState(on_cpu, &on_cuda);

  auto cpu_gradients = NewGradients(cpu_.get(), on_cpu);
  auto cuda_gradients = NewGradients(cuda_.get(), on_cuda);
  ASSERT_TRUE(cpu_gradients.ok() && cuda_gradients.ok());
  std::vector<float> upstream = Random(count, 1e-3, kSeed + index++);
  Backward(cpu_.get(), on_cpu, Upload(cpu_.get(), shape, upstream), &*cpu_gradients);
  Backward(cuda_.get(), on_cuda, Upload(cuda_.get(), shape, upstream), &*cuda_gradients);
  EXPECT_LE(FractionOff(Download(cuda_gradients->log_scale_weight),
                        Download(cpu_gradients->log_scale_weight), 1e-5),
            1e-3);
  // A weight on the mask's border adds its whole gradient to a sum or not.
  const double sum_tolerance = 2e-3;
  EXPECT_LE(
      FractionOff(Download(cuda_gradients->alpha), Download(cpu_gradients->alpha), sum_tolerance),
      0.01);
  EXPECT_LE(FractionOff(Download(cuda_gradients->log_scale_group),
                        Download(cpu_gradients->log_scale_group), sum_tolerance),
            0.01);
  EXPECT_LE(FractionOff(Download(cuda_gradients->log_delta), Download(cpu_gradients->log_delta),
                        sum_tolerance),
            0.01);

  ops::StepParams params = {};
  params.uniform_learning_rate = 5e-3f;
  params.binary_learning_rate = 5e-4f;
  auto device_params =
      Tensor::Allocate(cuda_.get(), DType::kUint8, {static_cast<int64_t>(sizeof(params))});
  ASSERT_TRUE(device_params.ok());
  for (int step = 0; step < 5; ++step) {
    SCOPED_TRACE(testing::Message() << "step " << step);
    params.draw = step;
    params.bias_correction1 = static_cast<float>(1 - std::pow(0.9, step + 1));
    params.bias_correction2 = static_cast<float>(1 - std::pow(0.999, step + 1));
    params.mapping = static_cast<int32_t>(step == 4       ? Mapping::kDirect
                                          : step % 2 == 0 ? Mapping::kLocal
                                                          : Mapping::kKeep);
    upstream = Random(count, 1e-3, kSeed + index++);
    ASSERT_TRUE(cuda_->CopyFromHost(device_params->data(), &params, sizeof(params)).ok());
    UpdateAndForward(cpu_.get(), &params, Upload(cpu_.get(), shape, upstream), &on_cpu, &cpu_w_hat);
    UpdateAndForward(cuda_.get(), static_cast<const ops::StepParams*>(device_params->data()),
                     Upload(cuda_.get(), shape, upstream), &on_cuda, &cuda_w_hat);
    ASSERT_TRUE(cuda_->Synchronize().ok());
    EXPECT_LE(FractionOfCodesOff(on_cuda, on_cpu), 5e-3);
    EXPECT_LE(FractionOff(Download(cuda_w_hat), Download(cpu_w_hat), act_tolerance + 1e-3), 1e-2);
    EXPECT_LE(FractionOff(Scales(on_cuda), Scales(on_cpu), 5e-3), 1e-2) << "s2";
    if (on_cuda.packs_codes() && step == 0) {
      // From the same numbers but for the last places: other random bits would round half of them
      // to the other neighbour.
      for (const auto& [actual, expected] :
           {std::pair{&on_cuda.m_log_scale_weight, &on_cpu.m_log_scale_weight},
            {&on_cuda.v_log_scale_weight, &on_cpu.v_log_scale_weight}}) {
        const std::vector<float> a = Download(*actual), e = Download(*expected);
        int64_t num_off = 0;
        for (size_t i = 0; i < a.size(); ++i) num_off += a[i] != e[i];
        EXPECT_LE(num_off, 1 + static_cast<int64_t>(a.size() / 100));
      }
    }
    const std::tuple<const char*, const Tensor*, const Tensor*, double> arrays[] = {
        {"m of s2", &on_cuda.m_log_scale_weight, &on_cpu.m_log_scale_weight, 1e-2},
        {"v of s2", &on_cuda.v_log_scale_weight, &on_cpu.v_log_scale_weight, 1e-2},
        {"alpha", &on_cuda.alpha, &on_cpu.alpha, 0.02},
        {"log delta", &on_cuda.log_delta, &on_cpu.log_delta, 0.02},
        {"s3", &on_cuda.log_scale_group, &on_cpu.log_scale_group, 0.1},
        {"v of alpha", &on_cuda.v_alpha, &on_cpu.v_alpha, 0.1},
        {"v of log delta", &on_cuda.v_log_delta, &on_cpu.v_log_delta, 0.1},
        {"v of s3", &on_cuda.v_log_scale_group, &on_cpu.v_log_scale_group, 0.1},
    };
    for (const auto& [name, actual, expected, allowed] : arrays) {
      EXPECT_LE(FractionOff(Download(*actual), Download(*expected), 5e-3), allowed) << name;
    }
  }
}

TEST_P(DeviceAgreementTest, GradientsAndStepsAgree) {
  CheckGradientsAndSteps(OptimizerState::kF32);
}
TEST_P(DeviceAgreementTest, CompactGradientsAndStepsAgree) {
  CheckGradientsAndSteps(OptimizerState::kBf16);
}

std::vector<float> DeviceAgreementTest::RunSteps(OptimizerState optimizer_state) {
  const Case& c = the_case();
  const int64_t count = c.num_outputs * c.num_inputs;
  const std::vector<float> weights = Random(count, 0.02, kSeed);
  const Shape shape = {c.num_outputs, c.num_inputs};
  QuantizerState state = NewState(cuda_.get(), c, weights, optimizer_state);
  InitializeUnified(cuda_.get(), {}, &state);
  Tensor w_hat = Upload(cuda_.get(), shape, weights);
  Forward(cuda_.get(), Mapping::kDirect, &state, &w_hat);
  ops::StepParams params = {};
  params.uniform_learning_rate = 5e-3f;
  params.binary_learning_rate = 5e-4f;
  params.bias_correction1 = 0.1f;
  params.bias_correction2 = 0.001f;
  params.mapping = static_cast<int32_t>(Mapping::kLocal);
  Tensor device_params =
      Tensor::Allocate(cuda_.get(), DType::kUint8, {static_cast<int64_t>(sizeof(params))}).value();
  for (int step = 0; step < 4; ++step) {
    params.draw = step;
    EXPECT_TRUE(cuda_->CopyFromHost(device_params.data(), &params, sizeof(params)).ok());
    UpdateAndForward(cuda_.get(), static_cast<const ops::StepParams*>(device_params.data()),
                     Upload(cuda_.get(), shape, Random(count, 1e-3, kSeed + step)), &state, &w_hat);
    EXPECT_TRUE(cuda_->Synchronize().ok());
  }
  std::vector<float> result = Download(w_hat);
  const std::vector<uint8_t> codes = Codes(state);
  result.insert(result.end(), codes.begin(), codes.end());
  for (const Tensor* tensor : {&state.alpha, &state.log_delta, &state.log_scale_weight,
                               &state.m_log_scale_weight, &state.v_log_scale_weight}) {
    const std::vector<float> values = Download(*tensor);
    result.insert(result.end(), values.begin(), values.end());
  }
  return result;
}

// No result depends on the order in which blocks run.
TEST_P(DeviceAgreementTest, StepsRepeatBitForBit) {
  for (const OptimizerState optimizer_state : {OptimizerState::kF32, OptimizerState::kBf16}) {
    EXPECT_EQ(RunSteps(optimizer_state), RunSteps(optimizer_state));
  }
}

TEST_P(DeviceAgreementTest, StoredWeightsAreTheBitsOfThePackedLayer) {
  const Case& c = the_case();
  const std::vector<float> weights = Random(c.num_outputs * c.num_inputs, 0.02, kSeed);
  QuantizerState state = NewState(cuda_.get(), c, weights,
                                  c.bits % 2 == 0 ? OptimizerState::kBf16 : OptimizerState::kF32);
  InitializeUnified(cuda_.get(), {}, &state);
  const UnifiedLinear unified = *Unify(cuda_.get(), state);
  std::vector<float> alpha = unified.alpha, beta = unified.shift;
  for (float& value : alpha) value = StoredScale(value);
  for (float& value : beta) value = StoredScale(value);
  const Tensor device_alpha =
      *Tensor::FromFloats(cuda_.get(), DType::kFloat32, state.alpha.shape(), alpha.data());
  const Tensor device_beta =
      *Tensor::FromFloats(cuda_.get(), DType::kFloat32, state.shift.shape(), beta.data());
  Tensor stored = Upload(cuda_.get(), state.weight.shape(), weights);
  WriteStored(cuda_.get(), CodesOf(state), device_alpha, device_beta, &stored);
  std::vector<float> expected(weights.size());
  Dequantize(Pack(unified), expected.data());
  if (act() == DType::kBfloat16) {
    for (float& value : expected) value = Bfloat16ToFloat(FloatToBfloat16(value));
  }
  EXPECT_EQ(Download(stored), expected) << c.bits << " bits, groups of " << c.group_size;
}

std::string CaseName(const testing::TestParamInfo<std::tuple<DType, int>>& info) {
  const Case& c = kCases[std::get<1>(info.param)];
  return absl::StrCat(DTypeName(std::get<0>(info.param)), "_", c.num_outputs, "x", c.num_inputs,
                      "_groups", c.group_size, "_bits", c.bits);
}

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DeviceAgreementTest);
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ConstantGroupsTest);

// None in a build without CUDA, where each would only be skipped.
std::vector<DType> Acts() {
  if (!CudaBuilt()) return {};
  return {DType::kFloat32, DType::kBfloat16};
}
INSTANTIATE_TEST_SUITE_P(Cases, DeviceAgreementTest,
                         testing::Combine(testing::ValuesIn(Acts()),
                                          testing::Range<int>(0, std::size(kCases))),
                         CaseName);
INSTANTIATE_TEST_SUITE_P(Case, ConstantGroupsTest,
                         testing::Combine(testing::ValuesIn(Acts()), testing::Values(0)), CaseName);

}  // namespace
}  // namespace uniquanf::quant
