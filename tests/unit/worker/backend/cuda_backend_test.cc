// The CUDA backend's memory, copies, recorded sequences and errors. Skipped without a device.
#include <gtest/gtest.h>

#include <memory>
#include <numeric>
#include <vector>

#include "common/base/status.h"
#include "worker/backend/tensor.h"
#include "worker/ops/op.h"

namespace uniquanf {
namespace {

class CudaBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    if (NumCudaDevices() == 0) GTEST_SKIP() << "no CUDA device";
    auto backend = NewCudaBackend(0);
    ASSERT_TRUE(backend.ok()) << backend.status();
    backend_ = *std::move(backend);
  }
  Tensor Upload(const std::vector<float>& values) {
    auto tensor = Tensor::FromFloats(backend_.get(), DType::kFloat32,
                                     {static_cast<int64_t>(values.size())}, values.data());
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    return *std::move(tensor);
  }
  std::unique_ptr<Backend> backend_;
};

TEST_F(CudaBackendTest, CopiesRoundTripAtEverySize) {
  // Small copies pass through a ring that these fill several times; the source is reused at once.
  for (int64_t count : {1, 3, 1000, 16384, 16385, 3000000}) {
    for (int repeat = 0; repeat < (count <= 16384 ? 150 : 2); ++repeat) {
      std::vector<float> values(count);
      std::iota(values.begin(), values.end(), static_cast<float>(repeat));
      Tensor tensor = Upload(values);
      const std::vector<float> expected = values;
      std::fill(values.begin(), values.end(), -1.0f);
      auto back = tensor.ToFloats();
      ASSERT_TRUE(back.ok()) << back.status();
      ASSERT_EQ(*back, expected);
    }
  }
}

// Ops before a copy aside see the old values, ops after JoinCopies the new ones.
TEST_F(CudaBackendTest, CopiesAsideAreOrderedByTheirJoin) {
  constexpr int64_t kCount = 1 << 22;
  float* host = static_cast<float*>(*backend_->AllocateHost(kCount * sizeof(float)));
  Tensor values = Upload(std::vector<float>(kCount, 0.0f));
  Tensor sum = Upload(std::vector<float>(kCount, 0.0f));
  for (int run = 1; run <= 20; ++run) {
    ops::Add(backend_.get(), values, sum, &sum);
    std::fill_n(host, kCount, static_cast<float>(run));
    ASSERT_TRUE(backend_->CopyFromHostAside(values.data(), host, kCount * sizeof(float)).ok());
    ASSERT_TRUE(backend_->JoinCopies().ok());
    ASSERT_TRUE(backend_->Synchronize().ok());
  }
  backend_->FreeHost(host);
  const std::vector<float> sums = *sum.ToFloats();
  EXPECT_EQ(sums.front(), 190);  // 0 + 1 + ... + 19
  EXPECT_EQ(sums.back(), 190);
  EXPECT_EQ((*values.ToFloats())[kCount / 2], 20);
}

TEST_F(CudaBackendTest, RecordedSequenceReadsNewValuesEachTime) {
  Tensor a = Upload({1, 2, 3, 4}), b = Upload({10, 20, 30, 40}), sum = Upload({0, 0, 0, 0});
  std::unique_ptr<CapturedSequence> sequence;
  for (int run = 0; run < 6; ++run) {
    const std::vector<float> values = {run + 1.0f, run + 2.0f, run + 3.0f, run + 4.0f};
    ASSERT_TRUE(a.CopyFromFloats(values.data()).ok());
    ASSERT_TRUE(backend_
                    ->RunCaptured(&sequence,
                                  [&] {
                                    ops::Add(backend_.get(), a, b, &sum);
                                    ops::Add(backend_.get(), sum, b, &sum);
                                  })
                    .ok());
    EXPECT_EQ(*sum.ToFloats(),
              (std::vector<float>{run + 21.0f, run + 42.0f, run + 63.0f, run + 84.0f}))
        << "run " << run;
  }
}

TEST_F(CudaBackendTest, RunningOutOfMemoryIsAnErrorAndNotTheEnd) {
  const MemoryInfo before = backend_->memory();
  auto too_much = backend_->Allocate(before.total_bytes * 2);
  ASSERT_FALSE(too_much.ok());
  EXPECT_EQ(too_much.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(ErrorReason(too_much.status()), "OUT_OF_MEMORY");
  EXPECT_TRUE(backend_->Synchronize().ok());
  Tensor tensor = Upload({1, 2});
  EXPECT_EQ(*tensor.ToFloats(), (std::vector<float>{1, 2}));
}

TEST_F(CudaBackendTest, MemoryIsCounted) {
  backend_->ResetPeak();
  const uint64_t start = backend_->memory().allocated_bytes;
  {
    auto a = Tensor::Allocate(backend_.get(), DType::kUint8, {1 << 20});
    auto b = Tensor::Allocate(backend_.get(), DType::kUint8, {1 << 20});
    ASSERT_TRUE(a.ok() && b.ok());
    EXPECT_EQ(backend_->memory().allocated_bytes, start + (2 << 20));
  }
  EXPECT_EQ(backend_->memory().allocated_bytes, start);
  EXPECT_EQ(backend_->memory().peak_allocated_bytes, start + (2 << 20));
}

TEST_F(CudaBackendTest, DescriptionNamesWhatBitsDependOn) {
  const std::string description = backend_->description();
  for (const char* part : {"cuda; ", "compute capability ", "CUDA ", "cuBLASLt "}) {
    EXPECT_NE(description.find(part), std::string::npos) << description;
  }
}

TEST(CudaBackendOpenTest, MissingDeviceIsNamed) {
  auto backend = NewCudaBackend(4711);
  ASSERT_FALSE(backend.ok());
  EXPECT_EQ(ErrorReason(backend.status()),
            CudaBuilt() ? "CUDA_DEVICE_NOT_FOUND" : "CUDA_NOT_BUILT");
}

}  // namespace
}  // namespace uniquanf
