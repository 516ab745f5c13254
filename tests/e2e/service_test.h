// What the end-to-end tests share: a job small enough for many runs, and the bytes that the batch
// program makes of it, which every run of the service must equal.
#ifndef UNIQUANF_TESTS_E2E_SERVICE_TEST_H_
#define UNIQUANF_TESTS_E2E_SERVICE_TEST_H_

#include <map>
#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "tests/support/mini_cluster.h"

namespace uniquanf {

using Artifact = std::map<std::string, std::string>;

class ServiceTest : public testing::Test {
 protected:
  ServiceTest();

  // examples/tiny at 3 bits, with few and short sequences.
  QuantizationSpec Spec(const std::string& output) const;
  // The same with as many epochs as nobody waits for: for jobs that are to be disturbed.
  QuantizationSpec LongSpec(const std::string& output) const;

  // The batch program's artifact of Spec(); made once.
  static const Artifact& Reference();
  // ... with these flags too.
  static Artifact BatchArtifact(const std::vector<std::string>& flags);

  // Submits and returns the job's name.
  std::string Submit(const QuantizationSpec& spec, bool unchecked = false);
  // The job succeeds and its artifact has Reference()'s bytes.
  void ExpectReferenceArtifact(const std::string& job, const QuantizationSpec& spec);
  void ExpectArtifact(const std::string& job, const QuantizationSpec& spec,
                      const Artifact& reference);
  // A layer of `job` runs on some worker.
  bool WaitUntilALayerRuns(const std::string& job);
  int NumFailures(const std::string& job, const std::string& failure_class);

  MiniCluster cluster_;
};

}  // namespace uniquanf

#endif  // UNIQUANF_TESTS_E2E_SERVICE_TEST_H_
