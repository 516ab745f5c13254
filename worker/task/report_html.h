// The job's report as one self-contained HTML page (inline SVG, no scripts, nothing fetched).
// Internal to worker/task. All text from inputs is escaped.
#ifndef UNIQUANF_WORKER_TASK_REPORT_HTML_H_
#define UNIQUANF_WORKER_TASK_REPORT_HTML_H_

#include <string>
#include <vector>

#include "worker/task/layer_result.h"
#include "worker/task/plan.h"
#include "worker/task/task_runner.h"

namespace uniquanf {

std::string RenderReportHtml(const Plan& plan, const FinalizeOutcome& outcome,
                             const std::vector<LayerResult>& layers);

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_REPORT_HTML_H_
