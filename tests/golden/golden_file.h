// Reads a goldens file: numbers produced by the authors' implementation (tests/golden/README.md).
// The path comes from the environment variable UNIQUANF_GOLDENS where that is set; otherwise it is
// the committed file. What a file holds is taken from its tensor names, so any file of the same
// form can be checked. Errors fail the test that asks.
#ifndef UNIQUANF_TESTS_GOLDEN_GOLDEN_FILE_H_
#define UNIQUANF_TESTS_GOLDEN_GOLDEN_FILE_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "common/safetensors/safetensors.h"
#include "worker/backend/backend.h"

namespace uniquanf::golden {

struct Array {
  std::vector<int64_t> shape;
  std::vector<double> values;
  int64_t rows() const { return shape.empty() ? 1 : shape[0]; }
  int64_t columns() const { return static_cast<int64_t>(values.size()) / rows(); }
  std::vector<float> floats() const { return {values.begin(), values.end()}; }
};

class GoldenFile {
 public:
  static std::string Path();
  // Opened once for each test; null after a recorded failure.
  static std::unique_ptr<GoldenFile> Open();

  bool Has(const std::string& name) const { return file_->tensors().count(name) > 0; }
  // Adds a failure and returns an empty array when the tensor is missing.
  Array Read(const std::string& name) const;
  // The names that start with `prefix` and end with `suffix`, without both, sorted.
  std::vector<std::string> NamesBetween(const std::string& prefix, const std::string& suffix) const;

 private:
  std::shared_ptr<const SafetensorsFile> file_;
};

// Largest |actual − expected| of a row, relative to the row's largest |expected|; rows marked in
// `skip` (may be empty) are left out. Infinite when a value is not finite.
struct Difference {
  double largest = 0;
  int64_t row = -1;
};
Difference RelativeDifference(const std::vector<float>& actual, const Array& expected,
                              int64_t columns, const std::vector<bool>& skip);

// Backends to test: the CPU, and a CUDA device where this build and machine have one.
std::vector<std::string> DeviceNames();
std::unique_ptr<Backend> MakeBackend(const std::string& device);

}  // namespace uniquanf::golden

#endif  // UNIQUANF_TESTS_GOLDEN_GOLDEN_FILE_H_
