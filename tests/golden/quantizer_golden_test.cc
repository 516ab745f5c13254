// g1 (initialization) and g2 (forward and backward) of the goldens.
#include <gtest/gtest.h>

#include <cmath>
#include <iostream>
#include <regex>
#include <string>
#include <vector>

#include "tests/golden/golden_file.h"
#include "worker/quant/quantizer.h"

namespace uniquanf::golden {
namespace {

constexpr double kTolerance = 1e-5;  // of the row's largest value

class QuantizerGoldenTest : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    backend_ = MakeBackend(GetParam());
    ASSERT_NE(backend_, nullptr);
    file_ = GoldenFile::Open();
    ASSERT_NE(file_, nullptr);
  }

  quant::QuantizerState NewState(const Array& w, int bits, int64_t group_size) {
    auto weight = Tensor::FromFloats(backend_.get(), DType::kFloat32, {w.rows(), w.columns()},
                                     w.floats().data());
    EXPECT_TRUE(weight.ok()) << weight.status();
    auto state = quant::NewQuantizerState(backend_.get(), *std::move(weight), bits, group_size, {});
    EXPECT_TRUE(state.ok()) << state.status();
    return *std::move(state);
  }

  Tensor Upload(const Array& array, const Shape& shape) {
    auto tensor = Tensor::FromFloats(backend_.get(), DType::kFloat32, shape, array.floats().data());
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *std::move(tensor);
  }

  static std::vector<float> Download(const Tensor& tensor) {
    auto values = tensor.ToFloats();
    EXPECT_TRUE(values.ok()) << values.status();
    return *std::move(values);
  }

  // Compares and prints the largest difference, which is what one wants to know of a golden.
  void Compare(const std::string& what, const std::vector<float>& actual, const Array& expected,
               int64_t columns, const std::vector<bool>& skip = {}) {
    const Difference difference = RelativeDifference(actual, expected, columns, skip);
    EXPECT_LE(difference.largest, kTolerance) << what << ", row " << difference.row;
    worst_ = std::max(worst_, difference.largest);
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<GoldenFile> file_;
  double worst_ = 0;
};

// Groups whose weights are all equal: the authors' result there is rounding noise.
std::vector<bool> ConstantGroups(const Array& w, int64_t group_size) {
  std::vector<bool> constant;
  for (size_t begin = 0; begin < w.values.size(); begin += group_size) {
    const auto first = w.values.begin() + begin;
    constant.push_back(
        std::all_of(first, first + group_size, [&](double v) { return v == *first; }));
  }
  return constant;
}

void ExpectFinite(const std::vector<float>& values) {
  for (size_t i = 0; i < values.size(); ++i) ASSERT_TRUE(std::isfinite(values[i])) << "at " << i;
}

TEST_P(QuantizerGoldenTest, InitializationMatches) {
  const Array w = file_->Read("g1.w");
  const std::vector<std::string> cases = file_->NamesBetween("g1.", ".alpha");
  ASSERT_FALSE(cases.empty());
  const std::regex pattern("b(\\d+)(?:\\.g(\\d+))?\\.G(\\d+)\\.T(\\d+)");
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    std::smatch match;
    ASSERT_TRUE(std::regex_match(name, match, pattern)) << "a name this test does not know";
    const int bits = std::stoi(match[1]);
    const int64_t group_size = match[2].matched ? std::stoll(match[2]) : w.columns();
    const quant::InitOptions options = {std::stoi(match[3]), std::stoi(match[4])};
    const std::string prefix = "g1." + name + ".";
    const std::vector<bool> constant = ConstantGroups(w, group_size);

    quant::QuantizerState state = NewState(w, bits, group_size);
    quant::InitializeUnified(backend_.get(), options, &state);
    Tensor w_hat = Upload(w, state.weight.shape());
    quant::Forward(backend_.get(), quant::Mapping::kDirect, &state, &w_hat);

    std::vector<float> scale = Download(state.log_delta);
    for (float& value : scale) value = std::exp(value);
    worst_ = 0;
    Compare("scale", scale, file_->Read(prefix + "scale"), 1, constant);
    Compare("zero_point", Download(state.zero_point), file_->Read(prefix + "zero_point"), 1,
            constant);
    Compare("alpha", Download(state.alpha), file_->Read(prefix + "alpha"), bits, constant);
    // The shift's unit is the step: compare it on the scale of α.
    if (file_->Has(prefix + "shift")) {
      const Array shift = file_->Read(prefix + "shift");
      const std::vector<float> actual = Download(state.shift);
      ASSERT_EQ(actual.size(), shift.values.size());
      for (size_t i = 0; i < actual.size(); ++i) {
        if (!constant[i]) {
          EXPECT_NEAR(actual[i], shift.values[i], kTolerance) << "group " << i;
        }
      }
    }
    Compare("w_hat", Download(w_hat), file_->Read(prefix + "w_hat"), group_size, constant);
    for (const Tensor* t : {&state.log_delta, &state.zero_point, &state.shift, &state.alpha}) {
      ExpectFinite(Download(*t));
    }
    ExpectFinite(Download(w_hat));
    std::cout << GetParam() << " " << name << ": largest relative difference " << worst_ << "\n";
  }
}

TEST_P(QuantizerGoldenTest, ForwardAndBackwardMatch) {
  const Array w = file_->Read("g2.w");
  const std::vector<std::string> cases = file_->NamesBetween("g2.", ".zero_point");
  ASSERT_FALSE(cases.empty());
  for (const std::string& name : cases) {
    SCOPED_TRACE(name);
    const std::string prefix = "g2." + name + ".";
    const Array zero_point = file_->Read(prefix + "zero_point");
    const Array first_alpha = file_->Read(prefix + "s0.alpha");
    const int64_t num_groups = static_cast<int64_t>(zero_point.values.size());
    const int bits = static_cast<int>(first_alpha.values.size() / num_groups);
    const int64_t group_size = static_cast<int64_t>(w.values.size()) / num_groups;
    quant::QuantizerState state = NewState(w, bits, group_size);
    state.zero_point = Upload(zero_point, state.zero_point.shape());
    state.shift = Upload(file_->Read(prefix + "shift"), state.shift.shape());
    Tensor w_hat = Upload(w, state.weight.shape());
    auto gradients = quant::NewGradients(backend_.get(), state);
    ASSERT_TRUE(gradients.ok());
    const int period = 2;
    int step = 0;
    for (;; ++step) {
      const std::string call = prefix + "s" + std::to_string(step) + ".";
      if (!file_->Has(call + "alpha")) break;
      SCOPED_TRACE(call);
      worst_ = 0;
      state.log_delta = Upload(file_->Read(call + "delta1"), state.log_delta.shape());
      state.log_scale_weight = Upload(file_->Read(call + "delta2"), state.weight.shape());
      state.log_scale_group = Upload(file_->Read(call + "delta3"), state.log_delta.shape());
      state.alpha = Upload(file_->Read(call + "alpha"), state.alpha.shape());
      quant::Forward(backend_.get(), quant::MappingForPass(step + 1, period), &state, &w_hat);

      const Array expected_codes = file_->Read(call + "idx");
      std::vector<uint8_t> codes(expected_codes.values.size());
      ASSERT_TRUE(backend_->CopyToHost(codes.data(), state.codes.data(), codes.size()).ok());
      int num_different = 0;
      for (size_t i = 0; i < codes.size(); ++i)
        num_different += codes[i] != expected_codes.values[i];
      EXPECT_EQ(num_different, 0) << "codes differ";
      Compare("w_hat", Download(w_hat), file_->Read(call + "w_hat"), group_size);

      const Tensor upstream = Upload(file_->Read(call + "up"), state.weight.shape());
      quant::Backward(backend_.get(), state, upstream, &*gradients);
      Compare("grad_alpha", Download(gradients->alpha), file_->Read(call + "grad_alpha"), bits);
      Compare("grad_s2", Download(gradients->log_scale_weight), file_->Read(call + "grad_delta2"),
              group_size);
      // Sums over a group may cancel; they are compared on the scale of the whole array.
      Compare("grad_s3", Download(gradients->log_scale_group), file_->Read(call + "grad_delta3"),
              num_groups);
      Compare("grad_log_delta", Download(gradients->log_delta), file_->Read(call + "grad_delta1"),
              num_groups);
      std::cout << GetParam() << " " << call << " largest relative difference " << worst_ << "\n";
    }
    EXPECT_GE(step, 1);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, QuantizerGoldenTest, testing::ValuesIn(DeviceNames()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace uniquanf::golden
