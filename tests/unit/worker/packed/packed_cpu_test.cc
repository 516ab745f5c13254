// On the CPU the bits depend neither on the instruction set nor on the number of threads.
#include <gtest/gtest.h>

#include <cstring>

#include "tests/unit/worker/packed/packed_fixture.h"
#include "worker/packed/packed_cpu.h"

namespace uniquanf::packed {
namespace {

std::vector<float> DecodeWith(cpu::Kernel kernel, Backend* backend, const Shape4& shape) {
  const PackedWeights weights = *Upload(backend, RandomLayer(shape, 3));
  const std::vector<float> x = RandomInputs(shape.num_inputs, 4);
  const std::vector<cpu::Segment> segments = cpu::MakeSegments(shape.num_inputs, shape.group_size);
  std::vector<float> tables((segments.back().first_table + segments.back().num_words) *
                            cpu::kTableFloatsPerWord);
  std::vector<float> sums(segments.size()), y(shape.num_outputs, NAN);
  cpu::MakeTables(segments, x.data(), tables.data(), sums.data());
  cpu::DecodeRows(kernel, {&weights, &segments, tables.data(), sums.data(), y.data()}, 0,
                  shape.num_outputs);
  return y;
}

TEST(PackedCpuTest, VectorKernelsGiveTheScalarKernelsBits) {
  const std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = 1});
  for (cpu::Kernel kernel : {cpu::Kernel::kAvx2, cpu::Kernel::kAvx512}) {
    if (!cpu::KernelRuns(kernel)) continue;
    for (int bits = 2; bits <= 8; ++bits) {
      for (const Shape4& shape :
           {Shape4{bits, 67, 1056, 1056}, Shape4{bits, 70, 256, 64}, Shape4{bits, 35, 100, 20}}) {
        const std::vector<float> scalar = DecodeWith(cpu::Kernel::kScalar, backend.get(), shape);
        const std::vector<float> vector = DecodeWith(kernel, backend.get(), shape);
        EXPECT_EQ(0, std::memcmp(scalar.data(), vector.data(), scalar.size() * sizeof(float)))
            << bits << " bits, kernel " << static_cast<int>(kernel);
      }
    }
  }
}

TEST(PackedCpuTest, BitsDoNotDependOnTheNumberOfThreads) {
  const Shape4 shape{3, 1000, 640, 64};
  const PackedLinear layer = RandomLayer(shape, 3);
  for (int64_t tokens : {1, 5, 33}) {
    std::vector<float> first;
    for (int threads : {1, 2, 3, 5}) {
      const std::unique_ptr<Backend> backend = NewCpuBackend({.num_threads = threads});
      const PackedWeights weights = *Upload(backend.get(), layer);
      const std::vector<float> inputs = RandomInputs(tokens * 640, 4);
      const Tensor x =
          *Tensor::FromFloats(backend.get(), DType::kFloat32, {tokens, 640}, inputs.data());
      Tensor y = *Tensor::Allocate(backend.get(), DType::kFloat32, {tokens, 1000});
      Workspace workspace;
      LinearForward(backend.get(), x, {{&weights, nullptr, &y}}, &workspace);
      const std::vector<float> result = *y.ToFloats();
      if (first.empty()) first = result;
      EXPECT_EQ(first, result) << threads << " threads, " << tokens << " tokens";
    }
  }
}

TEST(PackedCpuTest, SegmentsCoverEveryColumnOnce) {
  for (const auto& [inputs, group] :
       {std::pair<int64_t, int64_t>{100, 20}, {4096, 4096}, {4096, 128}, {96, 48}, {7, 7}}) {
    int64_t next = 0;
    for (const cpu::Segment& segment : cpu::MakeSegments(inputs, group)) {
      EXPECT_EQ(segment.first_column, next);
      EXPECT_EQ(segment.first_column / group, (segment.end_column - 1) / group);
      EXPECT_LE(segment.num_words, cpu::kMaxSegmentWords + 1);
      EXPECT_EQ(segment.first_word, segment.first_column / 32);
      next = segment.end_column;
    }
    EXPECT_EQ(next, inputs);
  }
}

}  // namespace
}  // namespace uniquanf::packed
