// The job's report as one self-contained HTML page: the built page of server/page
// (report_template.h) with the job's data as JSON in it. Nothing is fetched, and all text from
// inputs is data, which the page shows as text. Internal to worker/task.
//
// Thread safety: plain values and free functions. Errors: none; what is no UTF-8 is replaced, what
// is no finite number is null.
#ifndef UNIQUANF_WORKER_TASK_REPORT_HTML_H_
#define UNIQUANF_WORKER_TASK_REPORT_HTML_H_

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/artifact/manifest.h"
#include "worker/task/layer_result.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

// What an artifact's bytes are spent on.
class PartSizes {
 public:
  // A stored tensor; `outer`: of the shard that holds what belongs to no decoder layer.
  void Add(absl::string_view tensor, uint64_t size_bytes, bool outer);
  // Bytes of a quantized module's codes, scales and shifts; 0 where there is none of that name.
  uint64_t OfModule(const std::string& name) const;
  // [{"name", "size_bytes"}], in a fixed order and without empty parts; what is missing to
  // `total_bytes` is in files beside the tensors.
  nlohmann::ordered_json ToJson(uint64_t total_bytes) const;

 private:
  std::map<std::string, uint64_t> modules_;
  uint64_t codes_ = 0, scales_ = 0, zeros_ = 0, other_ = 0, outer_ = 0;
};

// The bits that a report gives for a layer: those of most of its modules; 0: left in full
// precision.
int MostCommonBits(const LayerResult& result);

struct ReportInputs {
  const QuantizationSpec& spec;  // with its URIs, of which only the model's last part is shown
  const Plan& plan;
  const Manifest& manifest;
  const FinalizeOutcome& outcome;
  const std::vector<LayerResult>& layers;
  const PartSizes& parts;
  std::string job;  // "jobs/x"; "" where no service ran it
  absl::Time finished;
};

// What the page draws (server/page/README.md, "The report's data").
nlohmann::ordered_json ReportJson(const ReportInputs& inputs);

std::string RenderReportHtml(const ReportInputs& inputs);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_REPORT_HTML_H_
