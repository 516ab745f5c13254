// The report's page as server/page builds it (server/page/report/report.html): one file, with
// UNIQUANF_REPORT_TITLE and UNIQUANF_REPORT_DATA where a job's title and data go. Embedded when
// the program is built. Internal to worker/task.
#ifndef UNIQUANF_WORKER_TASK_REPORT_TEMPLATE_H_
#define UNIQUANF_WORKER_TASK_REPORT_TEMPLATE_H_

#include "absl/strings/string_view.h"

namespace uniquanf {

absl::string_view ReportTemplate();

}  // namespace uniquanf

#endif  // UNIQUANF_WORKER_TASK_REPORT_TEMPLATE_H_
