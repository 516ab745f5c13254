// The one conversion between jobs, tasks and reports as plain values (common/job) and as messages;
// API, client and the server's stored records all go through it. Ids and resource names pass as
// they are; who needs the other kind puts it there afterwards.
// Thread safety: free functions, no state. Enum values of a later version become kUnknown.
#ifndef UNIQUANF_COMMON_RPC_JOB_PROTO_H_
#define UNIQUANF_COMMON_RPC_JOB_PROTO_H_

#include "common/job/job.h"
#include "common/job/report.h"
#include "uniquanf/v1/artifact.pb.h"
#include "uniquanf/v1/job.pb.h"
#include "uniquanf/v1/task.pb.h"

namespace uniquanf {

// The members of JobWish only.
void WishToProto(const JobWish& wish, v1::Job* proto);
void WishFromProto(const v1::Job& proto, JobWish* wish);

// Everything but name, spec, progress and report.
void JobFieldsToProto(const JobFields& job, v1::Job* proto);
void JobFieldsFromProto(const v1::Job& proto, JobFields* job);

void ProgressToProto(const JobProgress& progress, v1::JobProgress* proto);
JobProgress ProgressFromProto(const v1::JobProgress& proto);

// Everything but name and progress.
void TaskFieldsToProto(const TaskFields& task, v1::Task* proto);
void TaskFieldsFromProto(const v1::Task& proto, TaskFields* task);

void TaskProgressToProto(const TaskProgress& progress, v1::TaskProgress* proto);
TaskProgress TaskProgressFromProto(const v1::TaskProgress& proto);

void ArtifactToProto(const ArtifactInfo& artifact, v1::Artifact* proto);
ArtifactInfo ArtifactFromProto(const v1::Artifact& proto);

void ReportToProto(const JobReport& report, v1::JobReport* proto);
JobReport ReportFromProto(const v1::JobReport& proto);

TaskKind TaskKindFromProto(v1::Task::Kind kind);
v1::Task::Kind TaskKindToProto(TaskKind kind);
FailureClass FailureClassFromProto(v1::FailureClass failure_class);

}  // namespace uniquanf

#endif  // UNIQUANF_COMMON_RPC_JOB_PROTO_H_
