#include "tests/golden/golden_file.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "common/object_store/local_store.h"

namespace uniquanf::golden {

std::string GoldenFile::Path() {
  const char* path = std::getenv("UNIQUANF_GOLDENS");
  if (path != nullptr && *path != '\0') return path;
  return UNIQUANF_SOURCE_DIR "/tests/golden/uniquanf_goldens.safetensors";
}

std::unique_ptr<GoldenFile> GoldenFile::Open() {
  const std::string path = Path();
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash);
  auto store = OpenLocalStore(directory.empty() ? "/" : directory);
  if (!store.ok()) {
    ADD_FAILURE() << path << ": " << store.status();
    return nullptr;
  }
  auto file = SafetensorsFile::Open(*store, path.substr(slash + 1));
  if (!file.ok()) {
    ADD_FAILURE() << path << ": " << file.status();
    return nullptr;
  }
  auto golden = std::make_unique<GoldenFile>();
  golden->file_ = *file;
  return golden;
}

Array GoldenFile::Read(const std::string& name) const {
  Array array;
  const absl::StatusOr<TensorInfo> info = file_->Find(name);
  if (!info.ok()) {
    ADD_FAILURE() << info.status();
    return array;
  }
  array.shape = info->shape;
  array.values.resize(info->num_elements());
  absl::Status status;
  switch (info->dtype) {
    case SafetensorsDType::kF64:
      status = file_->ReadBytes(*info, array.values.data());
      break;
    case SafetensorsDType::kF32:
    case SafetensorsDType::kF16:
    case SafetensorsDType::kBF16: {
      std::vector<float> values(array.values.size());
      status = file_->ReadFloat(*info, values.data());
      std::copy(values.begin(), values.end(), array.values.begin());
      break;
    }
    default: {
      std::vector<int64_t> values(array.values.size());
      status = file_->ReadInt64(*info, values.data());
      std::copy(values.begin(), values.end(), array.values.begin());
    }
  }
  EXPECT_TRUE(status.ok()) << name << ": " << status;
  return array;
}

std::vector<std::string> GoldenFile::NamesBetween(const std::string& prefix,
                                                  const std::string& suffix) const {
  std::vector<std::string> names;
  for (const auto& [name, info] : file_->tensors()) {
    if (name.size() > prefix.size() + suffix.size() &&
        name.compare(0, prefix.size(), prefix) == 0 &&
        name.compare(name.size() - suffix.size(), suffix.size(), suffix) == 0) {
      names.push_back(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
    }
  }
  return names;
}

Difference RelativeDifference(const std::vector<float>& actual, const Array& expected,
                              int64_t columns, const std::vector<bool>& skip) {
  Difference difference;
  if (actual.size() != expected.values.size()) {
    ADD_FAILURE() << "sizes differ: " << actual.size() << " and " << expected.values.size();
    difference.largest = std::numeric_limits<double>::infinity();
    return difference;
  }
  const int64_t rows = static_cast<int64_t>(actual.size()) / columns;
  for (int64_t row = 0; row < rows; ++row) {
    if (!skip.empty() && skip[row]) continue;
    double scale = std::numeric_limits<float>::min(), largest = 0;
    for (int64_t i = row * columns; i < (row + 1) * columns; ++i) {
      scale = std::max(scale, std::fabs(expected.values[i]));
      const double error = std::fabs(actual[i] - expected.values[i]);
      largest =
          std::isfinite(error) ? std::max(largest, error) : std::numeric_limits<double>::infinity();
    }
    if (largest / scale > difference.largest || difference.row < 0) {
      difference = {largest / scale, row};
    }
  }
  return difference;
}

std::vector<std::string> DeviceNames() {
  std::vector<std::string> names = {"cpu"};
  if (NumCudaDevices() > 0) names.push_back("cuda");
  return names;
}

std::unique_ptr<Backend> MakeBackend(const std::string& device) {
  if (device == "cpu") return NewCpuBackend({});
  auto backend = NewCudaBackend(0);
  if (backend.ok()) return *std::move(backend);
  ADD_FAILURE() << backend.status();
  return nullptr;
}

}  // namespace uniquanf::golden
